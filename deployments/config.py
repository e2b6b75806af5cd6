"""The typed configuration: the `args` of a Serve config file. Unknown fields are errors.

`AppConfig` is all of it. Its base, `LiveConfig`, is what running routers take up without a restart,
from the `user_config` of the deployment `Router`. The descriptions of the fields are the reference
(`docs/configuration.md`) and the JSON schema: `make docs` writes both.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from deployments.configuration.classes import ClassConfig, classes_of, unknown_classes
from deployments.configuration.problems import Problem, UnsoundError, problems_of
from fairness.classes import MOST as MOST_CLASSES
from fairness.cost import ServiceCost
from fairness.groups import is_group
from fairness.prediction import Prediction
from fairness.store.address import Address, parse
from fairness.store.contract import QueueSettings
from fairness.store.settings import Credentials, StoreSettings, Tls
from router.body_rules import BodyRules
from router.clients import Client, Configured, Group, hash_key
from router.directory.records import GROUP_NAME, lineage, organisation_of
from router.level_limits import LevelLimits
from router.limits import QueueLimits
from router.watch import TracingSettings, WatchSettings

QUEUE = QueueLimits()  # the defaults
CHECKOUT = Path(__file__).resolve().parents[1]
EMBEDDED = "embedded"
CONTENT_KINDS = frozenset({"text", "image", "audio", "video", "file", "input", "refusal"})


def home() -> Path:
    """Where this machine's models and data are kept: FAIRLANE_HOME, or `.local` of the checkout
    (of the working folder when installed as a wheel)."""
    given = os.environ.get("FAIRLANE_HOME")
    if given:
        return Path(given)
    return (CHECKOUT if (CHECKOUT / "pyproject.toml").is_file() else Path.cwd()) / ".local"


class Strict(BaseModel):
    """A part of the configuration."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )


class CostConfig(Strict):
    """Service of a token."""

    input: float = Field(default=1.0, ge=0, description="Service of a prompt token.")
    output: float = Field(default=2.0, ge=0, description="Service of an output token.")
    cached_input: float = Field(
        default=0.0,
        ge=0,
        description="Service of a prompt token that the prefix cache provided; at most `input`.",
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> CostConfig:
        self.service_cost()
        return self

    def service_cost(self) -> ServiceCost:
        """The cost function. Raises ValueError for weights that make none."""
        return ServiceCost(self.input, self.output, self.cached_input)


class PredictionConfig(Strict):
    """How many output tokens a request will make, charged at its grant and corrected at its end."""

    predictor: Literal["pool_average", "moving_average", "quantile", "none"] = Field(
        default="pool_average",
        description="Output tokens charged in advance, at the grant: `pool_average` of the pool's "
        "recent requests, `moving_average` of the client's last five, `quantile` of its last "
        "twenty, or `none`; see [theory](theory.md).",
    )
    share: float = Field(
        default=1.0, ge=0, le=1, description="How much of the prediction is charged (0 to 1)."
    )
    level: float = Field(
        default=0.5, gt=0, le=1, description="Which quantile the predictor `quantile` takes."
    )


class StoreConfig(Strict):
    """Where the global queue is kept, and how to get in.

    Passwords are best left out of here: `password_file`, FAIRLANE_STORE_PASSWORD and
    FAIRLANE_SENTINEL_PASSWORD are read where the connections are made.
    """

    url: str = Field(
        default=EMBEDDED,
        repr=False,
        description="`embedded` for a Valkey inside the application (one machine), or the URL of a "
        "server, see [below](#the-store); REDIS_URL in the environment overrides it.",
    )
    username: str | None = Field(
        default=None, min_length=1, description="Who we are to the store (an ACL user)."
    )
    password: SecretStr | None = Field(
        default=None, description="The user's password; `password_file` keeps it out of here."
    )
    password_file: str | None = Field(
        default=None,
        min_length=1,
        description="The password's file on every node, instead of `password`.",
    )
    sentinel_username: str | None = Field(
        default=None, min_length=1, description="Who we are to the store's Sentinels."
    )
    sentinel_password: SecretStr | None = Field(
        default=None, description="The password to the Sentinels."
    )
    sentinel_password_file: str | None = Field(
        default=None,
        min_length=1,
        description="The file of that password on every node, instead of `sentinel_password`.",
    )
    ca_file: str | None = Field(
        default=None,
        min_length=1,
        description="A certificate authority to trust besides the system's (a PEM file on every "
        "node).",
    )
    cert_file: str | None = Field(
        default=None,
        min_length=1,
        description="Our certificate, for stores that ask for one (a PEM file on every node).",
    )
    key_file: str | None = Field(
        default=None, min_length=1, description="The private key of `cert_file`."
    )
    connect_timeout_s: float = Field(
        default=1.0,
        gt=0,
        description="Seconds to open a connection, TLS and log-in included.",
    )
    call_timeout_s: float = Field(
        default=2.0,
        gt=0,
        description="Seconds for a call in all: finding the server, connecting, the answer.",
    )
    sender_ttl_s: float = Field(
        default=10.0, ge=3, description="A router or replica silent for so many seconds is dead."
    )
    fail_closed: bool = Field(
        default=False,
        description="While the store is away: refuse requests (503) rather than let each router "
        "keep a queue of its own.",
    )

    @field_validator("url")
    @classmethod
    def _is_readable(cls, url: str) -> str:
        if url != EMBEDDED:
            _parsed_url("store.url", url)
        return url

    @model_validator(mode="after")
    def _fits_together(self) -> StoreConfig:
        for who in ("", "sentinel_"):
            if getattr(self, f"{who}password") and getattr(self, f"{who}password_file"):
                raise ValueError(f"store.{who}password and store.{who}password_file: give only one")
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("store.cert_file and store.key_file belong together: give both")
        if self.connect_timeout_s > self.call_timeout_s:
            raise ValueError("store.connect_timeout_s is a part of store.call_timeout_s: lower it")
        if self.url == EMBEDDED:
            return self
        address = _parsed_url("store.url", self.url)
        if address.password is not None and (self.password or self.password_file):
            raise ValueError(
                "store.url has a password, and so has store.password or store.password_file: "
                "give only one"
            )
        if address.username is not None and self.username is not None:
            raise ValueError("store.url has a user, and so has store.username: give only one")
        return self

    def resolved(self) -> str:
        """The URL to use."""
        return os.environ.get("REDIS_URL") or self.url

    def settings(self) -> StoreSettings:
        """What routers and replicas are given. Raises ValueError for what can't work."""
        url = self.resolved()
        if url != EMBEDDED:
            variable = "REDIS_URL in the environment" if url != self.url else "store.url"
            address = _parsed_url(variable, url)
            if (self.ca_file or self.cert_file) and not address.tls:
                raise ValueError(
                    f"store.ca_file and store.cert_file are for TLS, but {variable} is not: "
                    "write rediss:// (or rediss+sentinel://, rediss+cluster://)"
                )
        return StoreSettings(
            url,
            Credentials(self.username, _clear(self.password), self.password_file),
            Credentials(
                self.sentinel_username, _clear(self.sentinel_password), self.sentinel_password_file
            ),
            Tls(self.ca_file, self.cert_file, self.key_file),
            self.connect_timeout_s,
            self.call_timeout_s,
        )


def _clear(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


def _parsed_url(name: str, url: str) -> Address:
    """Raises ValueError that says where the unreadable URL stands."""
    try:
        return parse(url)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


class GroupConfig(Strict):
    """An organisation (`acme`), or a team of one (`acme/ml`)."""

    name: str = Field(
        pattern=f"^{GROUP_NAME}$",
        description="An organisation (`acme`) or a team of one (`acme/ml`): letters, digits and "
        "`._@+-`, at most one slash.",
    )
    weight: float = Field(
        default=1.0, gt=0, description="Its share next to its siblings (twice as much with 2)."
    )
    limits: LevelLimits = Field(
        default=LevelLimits(), description="[Limits](limits.md) of all its clients together."
    )


class ClientConfig(Strict):
    """One client: who is billed for service."""

    name: str = Field(
        min_length=1,
        max_length=128,
        description="Who is billed. More can be made while it runs: [clients](clients.md).",
    )
    weight: float = Field(
        default=1.0, gt=0, description="Its share next to others (twice as much with 2)."
    )
    group: str | None = Field(default=None, description="The one of `groups` that it is in.")
    limits: LevelLimits = Field(default=LevelLimits(), description="Its own [limits](limits.md).")
    priority_class: str | None = Field(
        default=None, description="The one of `classes` that it is in; by default the first."
    )
    keys: tuple[str, ...] = Field(
        default=(), description="Its API keys in the clear, for development."
    )
    key_hashes: tuple[str, ...] = Field(
        default=(), description="SHA-256 of its API keys in hex (`fairlane hash-key`)."
    )

    @field_validator("key_hashes")
    @classmethod
    def _are_hashes(cls, hashes: tuple[str, ...]) -> tuple[str, ...]:
        return _checked_hashes(hashes)

    @field_validator("name")
    @classmethod
    def _is_no_group(cls, name: str) -> str:
        if is_group(name):
            raise ValueError("a client's name can't end in a slash: that is how groups are told")
        return name

    def hashes(self) -> list[str]:
        """Hashes of all its keys."""
        return [*self.key_hashes, *map(hash_key, self.keys)]


class UsageConfig(Strict):
    """What is kept of what clients use."""

    retention_days: int = Field(
        default=400,
        ge=1,
        le=3660,
        description="Days for which the [usage](usage.md) of clients is kept.",
    )


class MetricsConfig(Strict):
    """What is exported of single clients."""

    top_clients: int = Field(
        default=20,
        ge=0,
        le=200,
        description="Clients with [metrics](metrics.md) of their own: those that received most of "
        "late. 0: no client's name is in any metric.",
    )


class DashboardConfig(Strict):
    """The pages at `/dashboard`."""

    enabled: bool = Field(
        default=True,
        description="Whether there is a [dashboard](dashboard.md), where the admin API is: at the "
        "ingress, or on `admin.port` only.",
    )
    session_hours: float = Field(
        default=12,
        gt=0,
        le=24 * 30,
        description="Hours for which one stays logged in to the dashboard.",
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


class ExplainConfig(Strict):
    """Which requests can be explained afterwards."""

    keep: int = Field(
        default=1000,
        ge=0,
        le=100_000,
        description="Requests that each router remembers, to [explain](explain.md) them; 0 for "
        "none.",
    )
    per_second: int = Field(
        default=100,
        ge=1,
        le=10_000,
        description="New ones of them a second and router, of one client at most a quarter of it.",
    )


class TracingConfig(Strict):
    """Traces by OpenTelemetry."""

    endpoint: str | None = Field(
        default=None,
        pattern="^https?://",
        description="Where [traces](tracing.md) go, by OTLP over HTTP, such as "
        "`http://collector:4318/v1/traces`; without one, what OTEL_EXPORTER_OTLP_TRACES_ENDPOINT "
        "or OTEL_EXPORTER_OTLP_ENDPOINT say where the application is built, else nowhere.",
    )
    sample: float = Field(
        default=0.01, ge=0, le=1, description="How many of the requests are traced (0 to 1)."
    )
    trust_incoming: bool = Field(
        default=False,
        description="Go on with the traces of clients (`traceparent`), and trace what they say is "
        "to be; only where all clients may do so.",
    )
    engine: bool = Field(default=True, description="Have vLLM add its own spans.")

    def resolved(self) -> str | None:
        """The endpoint to use."""
        environment = os.environ
        if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return None
        base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        return (
            self.endpoint
            or environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
            or (base and f"{base.rstrip('/')}/v1/traces")
            or None
        )

    def settings(self) -> TracingSettings | None:
        """What routers are given."""
        endpoint = self.resolved()
        if endpoint is None:
            return None
        return TracingSettings(endpoint, self.sample, self.trust_incoming)


class LoggingConfig(Strict):
    """Log lines of routers and replicas; never a prompt or a key."""

    format: Literal["text", "json"] = Field(
        default="text", description="Of every [log line](tracing.md#logs)."
    )
    access: bool = Field(
        default=False,
        description="A line for each request when all is known of it: who, how it ended, waits, "
        "tokens.",
    )


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


class PoolConfig(Strict):
    """One model and its replicas."""

    llm: dict[str, Any] = Field(
        description="The fields of `ray.serve.llm.LLMConfig`, which place the replicas, download "
        "the model and set the engine; `model_loading_config.model_source: tiny` is the random "
        "model that Fairlane makes itself."
    )
    lookahead: int = Field(
        default=4, ge=1, description="Requests kept waiting at a replica to hide a round trip."
    )
    drain_s: float = Field(
        default=600.0, ge=0, description="Seconds that a leaving replica lets its streams go on."
    )
    charge_interval_s: float = Field(
        default=0.1, gt=0, description="Seconds between two reports of charges."
    )
    price: float = Field(
        default=1.0,
        gt=0,
        description="Price of a unit of service in this pool, next to those of the other pools; "
        "means something with `across_pools.enabled`.",
    )
    adapters: dict[str, str] = Field(
        default={},
        description="LoRA adapters of the model: the name that clients ask for -> a folder on each "
        "node, or a name on the Hugging Face hub. See [pools](pools.md#lora-adapters).",
    )

    @property
    def model_id(self) -> str:
        """The name that clients ask for."""
        return str(self.llm["model_loading_config"]["model_id"])

    @property
    def deployment_name(self) -> str:
        """What Serve calls the pool's replicas (Ray makes it of the model's id)."""
        return f"Replica:{self.model_id.replace('/', '--').replace('.', '_')}"

    @field_validator("llm")
    @classmethod
    def _names_a_model(cls, llm: dict[str, Any]) -> dict[str, Any]:
        loading = llm.get("model_loading_config")
        if not isinstance(loading, dict) or not loading.get("model_id"):
            raise ValueError("give llm.model_loading_config.model_id, the name clients ask for")
        scaling = (llm.get("deployment_config") or {}).get("autoscaling_config") or {}
        if scaling.get("min_replicas", 1) == 0 or scaling.get("initial_replicas", 1) == 0:
            raise ValueError(
                "llm.deployment_config.autoscaling_config: keep 1 replica at least; the replicas "
                "tell of the backlog, so with none of them a pool would never be scaled up"
            )
        return llm

    @field_validator("adapters")
    @classmethod
    def _is_no_kind_of_content(cls, adapters: dict[str, str]) -> dict[str, str]:
        if taken := sorted(CONTENT_KINDS.intersection(adapters)):
            raise ValueError(
                f"vLLM would use an adapter of the name {taken[0]!r} for every message with such "
                "content, whatever model it asks for; choose another"
            )
        return adapters


class AcrossPoolsConfig(Strict):
    """Fairness over all pools together."""

    enabled: bool = Field(
        default=False,
        description="What a client receives in one pool counts in all of them, by `pools[].price`; "
        "else each pool is fair by itself. See [pools](pools.md#fairness-across-pools).",
    )
    debt: float = Field(
        default=400_000.0,
        ge=0,
        description="Service a live replica of a pool by which what a client of weight 1 had in "
        "other pools puts it behind those who wait there, at most.",
    )


class LiveConfig(Strict):
    """What running routers take up without a restart."""

    groups: tuple[GroupConfig, ...] = Field(
        default=(), description="Organisations and teams, and their shares."
    )
    clients: tuple[ClientConfig, ...] = Field(
        default=(), description="Clients, and the keys they are known by."
    )
    admin_keys: tuple[str, ...] = Field(
        default=(),
        description="Keys in the clear, for development, that open the "
        "[admin API](clients.md#the-admin-api) and nothing else.",
    )
    admin_key_hashes: tuple[str, ...] = Field(
        default=(), description="SHA-256 of such keys in hex (`fairlane hash-key`)."
    )
    router: RouterLimits = Field(default=RouterLimits(), description="What one router takes on.")

    @field_validator("admin_key_hashes")
    @classmethod
    def _are_hashes(cls, hashes: tuple[str, ...]) -> tuple[str, ...]:
        return _checked_hashes(hashes)

    @model_validator(mode="after")
    def _nothing_twice(self) -> Self:
        keys = [hashed for client in self.clients for hashed in client.hashes()]
        found = [
            *_twice("groups", "group", [group.name for group in self.groups]),
            *_twice("clients", "client", [client.name for client in self.clients]),
        ]
        if len({*keys, *self.admin_hashes()}) < len(keys) + len(self.admin_hashes()):
            what = "the same key stands in the configuration twice"
            found.append(Problem(("clients",), what, "leave it with one client or admin"))
        if found:
            raise UnsoundError(*found)
        return self

    @model_validator(mode="after")
    def _groups_are_there(self) -> Self:
        names = {group.name for group in self.groups}
        needed = [
            (("groups", number, "name"), group.name, organisation_of(group.name))
            for number, group in enumerate(self.groups)
        ] + [
            (("clients", number, "group"), client.name, client.group or "")
            for number, client in enumerate(self.clients)
        ]
        found = [
            Problem(
                where,
                f"{who} is in the group {group}, which is not under `groups`",
                f"add {{name: {group}}} there",
            )
            for where, who, group in needed
            if group and group not in names
        ]
        if found:
            raise UnsoundError(*found)
        return self

    # The last one, so that it wraps the others.
    @model_validator(mode="wrap")
    @classmethod
    def _says_what_to_mend(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(data)
        except ValidationError as error:
            found = problems_of(error, cls)
        raise UnsoundError(*found)

    def configured(self) -> Configured:
        """Clients, groups and keys, as routers are given them."""
        groups = {
            group.name: Group(group.name, group.weight, group.limits.limits())
            for group in self.groups
        }
        clients = {
            client.name: Client(
                client.name,
                client.weight,
                tuple(groups[path] for path in lineage(client.group or "")),
                client.limits.limits(),
                client.priority_class or "",
            )
            for client in self.clients
        }
        keys = tuple(
            (hashed, clients[client.name]) for client in self.clients for hashed in client.hashes()
        )
        return Configured(tuple(clients.values()), tuple(groups.values()), keys)

    def classes_of_clients(self) -> list[tuple[str, str | None]]:
        """Each client, and the priority class that is given for it."""
        return [(client.name, client.priority_class) for client in self.clients]

    def admin_hashes(self) -> tuple[str, ...]:
        """Hashes of the admin keys."""
        return (*self.admin_key_hashes, *map(hash_key, self.admin_keys))


class AppConfig(LiveConfig):
    """Everything about one deployment of Fairlane."""

    policy: Literal["vtc", "lcf", "fcfs", "shadow"] = Field(
        default="vtc",
        description="Order of requests, in the global queue and in the batch; `fcfs` turns "
        "fairness off; `shadow` does so too, and reports [what VTC would have changed](shadow.md); "
        "`lcf` is VTC without the lift, for comparison (not fair). While it runs: "
        "`PUT /admin/queue/policy`.",
    )
    classes: tuple[ClassConfig, ...] = Field(
        default=(),
        max_length=MOST_CLASSES,
        description="Priority classes, the highest first; a higher one goes first, but for the "
        "floors of those below it.",
    )
    cost: CostConfig = Field(default=CostConfig(), description="Service of a token.")
    burst: float = Field(
        default=4000.0,
        ge=0,
        description="Service a live replica that a client of weight 1, back from idleness, may "
        "have before it stands in line with the others; a larger one shortens the waits of those "
        "who come seldom, 0 is the paper's rule (take it with `predictor: none`); see "
        "[theory](theory.md#burst).",
    )
    prediction: PredictionConfig = Field(
        default=PredictionConfig(), description="What is charged in advance."
    )
    store: StoreConfig = Field(
        default=StoreConfig(), description="Where the global queue is kept, and how to get in."
    )
    router: RouterConfig = Field(default=RouterConfig(), description="The ingress.")
    admin: AdminConfig = Field(default=AdminConfig(), description="Where the admin API listens.")
    live_files: tuple[str, ...] = Field(
        default=(),
        description="YAML files on every node with a router, with `groups`, `clients` and "
        "`admin_key_hashes` to be added to those here; read again when they change, without a "
        "restart. Kubernetes puts ConfigMaps and Secrets there.",
    )
    dashboard: DashboardConfig = Field(
        default=DashboardConfig(), description="The pages at `/dashboard`."
    )
    usage: UsageConfig = Field(
        default=UsageConfig(), description="What is kept of what clients use."
    )
    across_pools: AcrossPoolsConfig = Field(
        default=AcrossPoolsConfig(), description="Fairness over all pools together."
    )
    metrics: MetricsConfig = Field(
        default=MetricsConfig(), description="What is exported of single clients."
    )
    explain: ExplainConfig = Field(
        default=ExplainConfig(), description="Which requests can be explained afterwards."
    )
    tracing: TracingConfig = Field(default=TracingConfig(), description="Traces by OpenTelemetry.")
    logging: LoggingConfig = Field(
        default=LoggingConfig(),
        description="Log lines of routers and replicas; never a prompt or a key.",
    )
    pools: tuple[PoolConfig, ...] = Field(
        min_length=1, description="The models, each with its replicas."
    )

    @field_validator("classes")
    @classmethod
    def _fit_together(cls, classes: tuple[ClassConfig, ...]) -> tuple[ClassConfig, ...]:
        classes_of(classes)
        return classes

    @model_validator(mode="after")
    def _classes_are_there(self) -> Self:
        if found := unknown_classes(self.classes_of_clients(), self.class_names()):
            raise UnsoundError(*found)
        return self

    @field_validator("pools")
    @classmethod
    def _no_model_twice(cls, pools: tuple[PoolConfig, ...]) -> tuple[PoolConfig, ...]:
        models = [name for pool in pools for name in (pool.model_id, *pool.adapters)]
        for problem in _twice("pools", "model", models):
            raise ValueError(f"{problem.what}; {problem.mend}")
        names = {pool.deployment_name: pool.model_id for pool in pools}
        for pool in pools:
            if pool.model_id != names[pool.deployment_name]:
                raise ValueError(
                    f"{pool.model_id} and {names[pool.deployment_name]} are one name to Serve, "
                    f"{pool.deployment_name}; rename one of them"
                )
        return pools

    def class_names(self) -> tuple[str, ...]:
        """The priority classes, the highest first."""
        return tuple(config.name for config in self.classes)

    def live(self) -> dict[str, Any]:
        """The part that is a LiveConfig, as it was given."""
        given = self.model_dump(mode="json", include=set(LiveConfig.model_fields))
        given["router"] = {name: given["router"][name] for name in RouterLimits.model_fields}
        return given

    def watch_settings(self) -> WatchSettings:
        """Who looks at requests in routers."""
        return WatchSettings(
            self.explain.keep,
            self.explain.per_second,
            self.logging.access,
            self.tracing.settings(),
        )

    def queue_settings(self) -> QueueSettings:
        """What all senders of a pool agree on."""
        return QueueSettings(
            self.cost.service_cost(),
            sender_ttl_ms=int(self.store.sender_ttl_s * 1000),
            prediction=Prediction(**self.prediction.model_dump()),
            burst=self.burst,
            usage_retention_days=self.usage.retention_days,
            classes=classes_of(self.classes),
        )


def changed(args: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`args` where `changes` (a `user_config`) replace fields; sections field by field, lists
    whole."""
    merged = dict(args)
    for name, value in changes.items():
        old = merged.get(name)
        merged[name] = (
            changed(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return merged


def _twice(field: str, what: str, names: list[str]) -> list[Problem]:
    often = sorted(name for name, times in Counter(names).items() if times > 1)
    if not often:
        return []
    shown = f"the same {what} stands in the configuration twice: {', '.join(often)}"
    return [Problem((field,), shown, "leave one of them")]


def _checked_hashes(hashes: tuple[str, ...]) -> tuple[str, ...]:
    for hashed in hashes:
        if not re.fullmatch(r"[0-9a-f]{64}", hashed):
            raise ValueError("a key hash is 64 hex digits; make one with `fairlane hash-key`")
    return hashes
