"""The typed configuration: the `args` of a Serve config file. Unknown fields are errors."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from fairness.cost import ServiceCost
from fairness.groups import is_group
from fairness.prediction import Prediction
from fairness.store.address import Address, parse
from fairness.store.contract import QueueSettings
from fairness.store.settings import Credentials, StoreSettings, Tls
from router.body_rules import BodyRules
from router.clients import Client, Configured, Group, hash_key
from router.directory.records import GROUP_NAME, lineage, organisation_of

CHECKOUT = Path(__file__).resolve().parents[1]
EMBEDDED = "embedded"


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
    """Service of a token: `input` for a prompt token, `output` for a generated one, `cached_input`
    for a prompt token that the prefix cache provided.
    """

    input: float = Field(default=1.0, ge=0)
    output: float = Field(default=2.0, ge=0)
    cached_input: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _makes_sense(self) -> CostConfig:
        self.service_cost()
        return self

    def service_cost(self) -> ServiceCost:
        """The cost function. Raises ValueError for weights that make none."""
        return ServiceCost(self.input, self.output, self.cached_input)


class PredictionConfig(Strict):
    """How many output tokens a request will make, charged at its grant and corrected at its end.

    predictor: `pool_average`, of the pool's last requests, whoever sent them; `moving_average` of
    the client's last five; `quantile` (the `level`-quantile of its last twenty); `none`. share: how
    much of the prediction is charged in advance.
    """

    predictor: Literal["pool_average", "moving_average", "quantile", "none"] = "pool_average"
    share: float = Field(default=1.0, ge=0, le=1)
    level: float = Field(default=0.5, gt=0, le=1)


class StoreConfig(Strict):
    """Where the global queue is kept, and how to get in.

    url: "embedded" for a Valkey inside the application (one machine), or the URL of a server, of
    its Sentinels or of a Cluster (`fairness/store/address.py`). REDIS_URL in the environment
    overrides it. Passwords are best left out of here: `password_file`, FAIRLANE_STORE_PASSWORD
    and FAIRLANE_SENTINEL_PASSWORD are read where the connections are made. A silent router or
    replica counts as dead after `sender_ttl_s`. While the store is away, each router keeps the
    queue of its own requests; with `fail_closed` it refuses them.
    """

    url: str = Field(default=EMBEDDED, repr=False)
    username: str | None = Field(default=None, min_length=1)
    password: SecretStr | None = None
    password_file: str | None = Field(default=None, min_length=1)
    sentinel_username: str | None = Field(default=None, min_length=1)
    sentinel_password: SecretStr | None = None
    sentinel_password_file: str | None = Field(default=None, min_length=1)
    ca_file: str | None = Field(default=None, min_length=1)
    cert_file: str | None = Field(default=None, min_length=1)
    key_file: str | None = Field(default=None, min_length=1)
    connect_timeout_s: float = Field(default=1.0, gt=0)
    call_timeout_s: float = Field(default=2.0, gt=0)
    sender_ttl_s: float = Field(default=10.0, ge=3)
    fail_closed: bool = False

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

    name: str = Field(pattern=f"^{GROUP_NAME}$")
    weight: float = Field(default=1.0, gt=0)


class ClientConfig(Strict):
    """One client: who is billed for service. group: the name of the one it is in. keys: in the
    clear, for development; key_hashes: SHA-256 of a key in hex (`fairlane hash-key`)."""

    name: str = Field(min_length=1, max_length=128)
    weight: float = Field(default=1.0, gt=0)
    group: str | None = None
    keys: tuple[str, ...] = ()
    key_hashes: tuple[str, ...] = ()

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


class AdminConfig(Strict):
    """Where the admin API listens: on a port of its own, of every machine that runs a router, or
    without a port under /admin of the ingress."""

    port: int | None = Field(default=None, ge=1, le=65535)
    host: str = Field(default="127.0.0.1", min_length=1)


class RouterConfig(Strict):
    """The ingress. max_wait_s: for one's turn, then 503. body_timeout_s: for a body to come, then
    408. The others: `router.body_rules.BodyRules`."""

    replicas: int = Field(default=2, ge=1)
    max_body_bytes: int = Field(default=8 * 2**20, gt=0)
    max_wait_s: float = Field(default=600.0, gt=0)
    body_timeout_s: float = Field(default=60.0, gt=0)
    max_sequences: int = Field(default=128, ge=1)
    max_inputs: int = Field(default=2048, ge=1)
    allow_chat_template: bool = False
    allow_media_options: bool = False
    allow_remote_media: bool = False
    num_cpus: float = Field(default=1.0, ge=0)

    def rules(self) -> BodyRules:
        """What bodies may ask."""
        return BodyRules(
            self.max_sequences,
            self.max_inputs,
            self.allow_chat_template,
            self.allow_media_options,
            self.allow_remote_media,
        )


class PoolConfig(Strict):
    """One model and its replicas.

    llm: the fields of `ray.serve.llm.LLMConfig`, which place the replicas, download the model
    and set the engine (`engine_kwargs`). `model_source: tiny` is the random model that Fairlane
    makes itself. lookahead: requests kept waiting at each replica to hide a round trip.
    drain_s: how long a leaving replica lets its streams go on.
    """

    llm: dict[str, Any]
    lookahead: int = Field(default=4, ge=1)
    drain_s: float = Field(default=600.0, ge=0)
    charge_interval_s: float = Field(default=0.1, gt=0)

    @property
    def model_id(self) -> str:
        """The name that clients ask for."""
        return str(self.llm["model_loading_config"]["model_id"])

    @field_validator("llm")
    @classmethod
    def _names_a_model(cls, llm: dict[str, Any]) -> dict[str, Any]:
        if not (llm.get("model_loading_config") or {}).get("model_id"):
            raise ValueError("give llm.model_loading_config.model_id, the name clients ask for")
        return llm


class AppConfig(Strict):
    """Everything about one deployment of Fairlane.

    burst: service a replica that a client of weight 1, back from idleness, may have before it is in
    line with the others again.
    """

    policy: Literal["vtc", "lcf", "fcfs"] = "vtc"
    cost: CostConfig = CostConfig()
    burst: float = Field(default=4000.0, ge=0)
    prediction: PredictionConfig = PredictionConfig()
    store: StoreConfig = StoreConfig()
    router: RouterConfig = RouterConfig()
    pools: tuple[PoolConfig, ...] = Field(min_length=1)
    groups: tuple[GroupConfig, ...] = ()
    clients: tuple[ClientConfig, ...] = ()
    admin: AdminConfig = AdminConfig()
    admin_keys: tuple[str, ...] = ()
    admin_key_hashes: tuple[str, ...] = ()

    @field_validator("admin_key_hashes")
    @classmethod
    def _are_hashes(cls, hashes: tuple[str, ...]) -> tuple[str, ...]:
        return _checked_hashes(hashes)

    @model_validator(mode="after")
    def _nothing_twice(self) -> AppConfig:
        for what, names in (
            ("group", [group.name for group in self.groups]),
            ("client", [client.name for client in self.clients]),
            ("model", [pool.model_id for pool in self.pools]),
            (
                "key",
                [key for client in self.clients for key in client.hashes()]
                + [*self.admin_hashes()],
            ),
        ):
            if len(set(names)) < len(names):
                shown = "" if what == "key" else f": {', '.join(sorted(names))}"
                raise ValueError(f"the same {what} stands in the configuration twice{shown}")
        return self

    @model_validator(mode="after")
    def _groups_are_there(self) -> AppConfig:
        names = {group.name for group in self.groups}
        needed = [(group.name, organisation_of(group.name)) for group in self.groups]
        needed += [(client.name, client.group or "") for client in self.clients]
        for who, group in needed:
            if group and group not in names:
                raise ValueError(f"{who} is in the group {group}, which is not under `groups`")
        return self

    def configured(self) -> Configured:
        """Clients, groups and keys, as routers are given them."""
        groups = {group.name: Group(group.name, group.weight) for group in self.groups}
        clients = {
            client.name: Client(
                client.name,
                client.weight,
                tuple(groups[path] for path in lineage(client.group or "")),
            )
            for client in self.clients
        }
        keys = tuple(
            (hashed, clients[client.name]) for client in self.clients for hashed in client.hashes()
        )
        return Configured(tuple(clients.values()), tuple(groups.values()), keys)

    def admin_hashes(self) -> tuple[str, ...]:
        """Hashes of the admin keys."""
        return (*self.admin_key_hashes, *map(hash_key, self.admin_keys))

    def queue_settings(self) -> QueueSettings:
        """What all senders of a pool agree on."""
        return QueueSettings(
            self.cost.service_cost(),
            sender_ttl_ms=int(self.store.sender_ttl_s * 1000),
            prediction=Prediction(**self.prediction.model_dump()),
            burst=self.burst,
        )


def _checked_hashes(hashes: tuple[str, ...]) -> tuple[str, ...]:
    for hashed in hashes:
        if not re.fullmatch(r"[0-9a-f]{64}", hashed):
            raise ValueError("a key hash is 64 hex digits; make one with `fairlane hash-key`")
    return hashes
