"""The typed configuration: the `args` of a Serve config file. Unknown fields are errors.

`AppConfig` is all of it. Its base, `LiveConfig`, is what running routers take up without a restart,
from the `user_config` of the deployment `Router`. Their parts are in `deployments/configuration/`,
a module each. The descriptions of the fields are the reference (`docs/configuration.md`) and the
JSON schema: `make docs` writes both.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    field_validator,
    model_validator,
)

from deployments.configuration.classes import ClassConfig, classes_of, unknown_classes
from deployments.configuration.clients import ClientConfig, GroupConfig, checked_hashes
from deployments.configuration.observing import (
    DashboardConfig,
    ExplainConfig,
    LoggingConfig,
    MetricsConfig,
    TracingConfig,
    UsageConfig,
)
from deployments.configuration.pools import (
    AcrossPoolsConfig,
    CostConfig,
    PoolConfig,
    PredictionConfig,
)
from deployments.configuration.problems import Problem, UnsoundError, problems_of
from deployments.configuration.routers import AdminConfig, RouterConfig, RouterLimits
from deployments.configuration.store import EMBEDDED, StoreConfig
from deployments.configuration.strict import Strict
from fairness.classes import MOST as MOST_CLASSES
from fairness.prediction import Prediction
from fairness.store.contract import QueueSettings
from router.clients import Client, Configured, Group, hash_key
from router.directory.records import lineage, organisation_of
from router.watch import WatchSettings

__all__ = [
    "CHECKOUT",
    "EMBEDDED",
    "AppConfig",
    "LiveConfig",
    "PoolConfig",
    "PredictionConfig",
    "StoreConfig",
    "TracingConfig",
    "changed",
    "home",
]

CHECKOUT = Path(__file__).resolve().parents[1]


def home() -> Path:
    """Where this machine's models and data are kept: FAIRLANE_HOME, or `.local` of the checkout
    (of the working folder when installed as a wheel)."""
    given = os.environ.get("FAIRLANE_HOME")
    if given:
        return Path(given)
    return (CHECKOUT if (CHECKOUT / "pyproject.toml").is_file() else Path.cwd()) / ".local"


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
        return checked_hashes(hashes)

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
