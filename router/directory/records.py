"""What the directory holds, as values. Times are milliseconds since 1970."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import orjson

from fairness.limits import NO_LIMITS, Limits

KEY_PREFIX = "sk-fl-"
KEY_BYTES = 32  # of randomness

# One part of a name: what needs no quoting in URLs, shells and metrics.
PART = r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}"
CLIENT_NAME = PART
GROUP_NAME = rf"{PART}(/{PART})?"


@dataclass(frozen=True, slots=True)
class ClientRecord:
    """A client. group: the path of its team or organisation; "" for none. created: 0 and `fixed`
    where the configuration has it. priority_class: "" for the first."""

    name: str
    weight: float
    group: str = ""
    enabled: bool = True
    created: int = 0
    fixed: bool = False
    limits: Limits = NO_LIMITS
    priority_class: str = ""


@dataclass(frozen=True, slots=True)
class GroupRecord:
    """An organisation or a team."""

    name: str
    weight: float
    created: int = 0
    fixed: bool = False
    limits: Limits = NO_LIMITS


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key, without the key. expires, revoked: 0 for never."""

    id: str
    client: str
    label: str = ""
    created: int = 0
    expires: int = 0
    revoked: int = 0
    fixed: bool = False

    def state(self, now: int) -> str:
        """`active`, `expired` or `revoked`."""
        if self.revoked:
            return "revoked"
        return "expired" if self.expires and self.expires <= now else "active"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes something. admin: the id of the admin key. origin: where the request is from."""

    admin: str
    origin: str


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the log. id: `MILLISECONDS-NUMBER`. subject: `client:NAME`, `group:PATH`, or
    what else was changed. key: the id of the key that it is about, or "". detail: JSON."""

    id: str
    verb: str
    subject: str
    key: str
    actor: Actor
    detail: str

    @property
    def time(self) -> int:
        """When."""
        return int(self.id.partition("-")[0])


def limits_text(limits: Limits) -> str:
    """As they are stored: JSON of those that are set."""
    return orjson.dumps(limits.given()).decode()


def limits_of(text: str | None) -> Limits:
    """Read `limits_text`; routers of another version may have written others: left out."""
    stored = orjson.loads(text) if text else {}
    return Limits(**{name: stored[name] for name in Limits._fields if name in stored})


def new_key() -> str:
    """A key in the clear: shown once, kept nowhere."""
    return KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)


def organisation_of(group: str) -> str:
    """The organisation that a team is in; "" for an organisation."""
    organisation, slash, _ = group.partition("/")
    return organisation if slash else ""


def lineage(group: str) -> tuple[str, ...]:
    """The paths of a group and of what it is in, outermost first; none for ""."""
    return tuple(path for path in (organisation_of(group), group) if path)
