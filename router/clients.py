"""Who a key belongs to. Only hashes of keys are kept, and they are found by hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from router.errors import ApiError, unauthorized

ID_LENGTH = 12  # hex digits: enough to tell keys apart, far too few to find one


@dataclass(frozen=True, slots=True)
class Group:
    """An organisation, or a team of one, named by its path: `acme`, `acme/ml`.

    weight: its share next to its siblings.
    """

    name: str
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Client:
    """Who is billed for service.

    weight: its share next to others (1.0 by default). groups: those it is in, outermost first
    (organisation, team); at most two. priority_class: "" for the first.
    """

    name: str
    weight: float = 1.0
    groups: tuple[Group, ...] = ()
    priority_class: str = ""


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
