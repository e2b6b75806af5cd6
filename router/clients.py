"""Who a key belongs to. Only hashes of keys are kept, and they are found by hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from fairness.limits import NO_LIMITS, Limits, Terms
from router.errors import ApiError, unauthorized

ID_LENGTH = 12  # hex digits: enough to tell keys apart, far too few to find one


@dataclass(frozen=True, slots=True)
class Group:
    """An organisation, or a team of one, named by its path: `acme`, `acme/ml`.

    weight: its share next to its siblings. limits: of all its clients together.
    """

    name: str
    weight: float = 1.0
    limits: Limits = NO_LIMITS


@dataclass(frozen=True, slots=True)
class Client:
    """Who is billed for service.

    weight: its share next to others (1.0 by default). groups: those it is in, outermost first
    (organisation, team); at most two. limits: its own. levels: those of the client and of its
    groups, the outermost first; none if none are set. priority_class: "" for the first.
    """

    name: str
    weight: float = 1.0
    groups: tuple[Group, ...] = ()
    limits: Limits = NO_LIMITS
    priority_class: str = ""
    levels: tuple[Limits, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        levels = (self.limits, *(group.limits for group in self.groups))
        unlimited = all(limits == NO_LIMITS for limits in levels)
        object.__setattr__(self, "levels", () if unlimited else levels)

    def terms(self, max_output: int | None, *, admitted: bool) -> Terms | None:
        """On which it submits a request; None: it has no limits that the store applies."""
        if not any(any(limits.in_store) for limits in self.levels):
            return None
        return Terms(self.levels, max_output, admitted)

    def max_wait_s(self, most: float) -> float:
        """Seconds that a request of it may wait in the queue, at most `most`."""
        return min([most, *(limits.max_wait_s or most for limits in self.levels)])


@dataclass(frozen=True, slots=True)
class Configured:
    """What the configuration says of clients; the admin API does not change it.

    keys: (hash of a key, its client). classes: the priority classes that there are.
    """

    clients: tuple[Client, ...] = ()
    groups: tuple[Group, ...] = ()
    keys: tuple[tuple[str, Client], ...] = ()
    classes: tuple[str, ...] = ()


class Lookup(Protocol):
    """Where keys are looked for that the configuration does not have."""

    async def client(self, hashed: str) -> Client:
        """The client of a key's hash. Raises ApiError 401 or 503."""
        ...


def hash_key(key: str) -> str:
    """SHA-256 of an API key, in hex. Keys are long random strings: no salt, no stretching."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


def key_id(hashed: str) -> str:
    """What a key is called where people see it: the beginning of its hash."""
    return hashed[:ID_LENGTH]


def bearer_key(authorization: str | None) -> str:
    """The key in an Authorization header. Raises ApiError 401."""
    scheme, _, key = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise unauthorized("send your API key as 'Authorization: Bearer KEY'")
    return key.strip()


def unknown_key() -> ApiError:
    """401 for a key that nobody has."""
    return unauthorized("this API key is not known here; check it or ask your operator")


class Clients:
    """All clients by the hashes of their keys: the configuration's, then the directory's."""

    def __init__(self, keys: Iterable[tuple[str, Client]], directory: Lookup | None = None) -> None:
        self._by_hash = dict(keys)
        self._directory = directory

    async def client(self, authorization: str | None) -> Client:
        """The client of an Authorization header. Raises ApiError 401, or 503 where the key must
        be looked up and can't be.

        O(1), about a microsecond, for keys of the configuration and for those the directory has in
        its cache; else one round trip to the store.
        """
        hashed = hash_key(bearer_key(authorization))
        client = self._by_hash.get(hashed)
        if client is not None:
            return client
        if self._directory is None:
            raise unknown_key()
        return await self._directory.client(hashed)
