"""Routers in the configuration: what one takes on, where they run, where the admin API listens."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from deployments.configuration.problems import Problem, UnsoundError
from deployments.configuration.strict import Strict
from router.body_rules import BodyRules
from router.limits import QueueLimits

QUEUE = QueueLimits()  # the defaults


class QueueConfig(Strict):
    """What may wait in one router, so that nobody can fill its memory. Beyond it: 429."""

    requests_per_client: int = Field(
        default=QUEUE.requests_per_client,
        ge=1,
        description="Requests of one client that may wait in one router, then 429.",
    )
    requests: int = Field(
        default=QUEUE.requests,
        ge=1,
        description="Requests of all clients that may wait in one router, then 429.",
    )
    bytes_per_client: int = Field(
        default=QUEUE.bytes_per_client,
        ge=1,
        description="Bytes of one client's waiting bodies in one router, then 429.",
    )
    bytes: int = Field(
        default=QUEUE.bytes,
        ge=1,
        description="Bytes of all waiting bodies in one router, then 429.",
    )

    def limits(self) -> QueueLimits:
        """What routers are given."""
        return QueueLimits(**self.model_dump())


class RouterLimits(Strict):
    """What one router takes on."""

    max_body_bytes: int = Field(
        default=8 * 2**20, gt=0, description="Larger request bodies are refused (413); bytes."
    )
    max_wait_s: float = Field(
        default=600.0, gt=0, description="Seconds to wait for one's turn, then 503."
    )
    body_timeout_s: float = Field(
        default=60.0, gt=0, description="Seconds for a whole body to come, then 408."
    )
    max_sequences: int = Field(
        default=128,
        ge=1,
        description="Sequences that one request may have written: its prompts times `n`, then 400.",
    )
    max_inputs: int = Field(
        default=2048,
        ge=1,
        description="Texts in one request for embeddings, scores or a ranking, then 400.",
    )
    allow_chat_template: bool = Field(
        default=False,
        description="Take `chat_template` and `chat_template_kwargs` from clients; both can hold "
        "up a replica for everybody.",
    )
    allow_media_options: bool = Field(
        default=False,
        description="The same for `mm_processor_kwargs` and `media_io_kwargs`.",
    )
    allow_remote_media: bool = Field(
        default=False,
        description="Let clients name URLs that replicas fetch (set vLLM's "
        "`allowed_media_domains`, too); `data:` URLs always work.",
    )
    queue: QueueConfig = Field(
        default=QueueConfig(), description="What may wait in one router; beyond it, 429."
    )

    @model_validator(mode="after")
    def _a_body_fits(self) -> RouterLimits:
        if self.max_body_bytes > min(self.queue.bytes_per_client, self.queue.bytes):
            raise UnsoundError(
                Problem(
                    ("max_body_bytes",),
                    "no body of that size may wait",
                    "lower it, or raise queue.bytes_per_client and queue.bytes",
                )
            )
        return self

    def rules(self) -> BodyRules:
        """What bodies may ask."""
        return BodyRules(
            self.max_sequences,
            self.max_inputs,
            self.allow_chat_template,
            self.allow_media_options,
            self.allow_remote_media,
        )


class RouterConfig(RouterLimits):
    """The ingress."""

    replicas: int = Field(default=2, ge=1, description="Routers.")
    autoscaling: dict[str, Any] | None = Field(
        default=None,
        description="Instead of `replicas`: Ray Serve's `autoscaling_config` of the routers, such "
        "as `{min_replicas: 2, max_replicas: 8, target_ongoing_requests: 500}`. A request is "
        "ongoing from its arrival to the last byte of its answer.",
    )
    drain_s: float = Field(
        default=600.0, ge=0, description="Seconds that a leaving router lets its streams go on."
    )
    num_cpus: float = Field(default=1.0, ge=0, description="CPUs that Ray reserves for each.")
    label_selector: dict[str, str] = Field(
        default={},
        description="Labels of the Ray nodes that routers run on, such as those of a worker group "
        "of KubeRay's; without, any node.",
    )


class AdminConfig(Strict):
    """Where the admin API listens."""

    port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="The admin API's own port, on every machine with a router; without one it is "
        "at the ingress, under `/admin`.",
    )
    host: str = Field(
        default="127.0.0.1", min_length=1, description="The address that `admin.port` is bound to."
    )
