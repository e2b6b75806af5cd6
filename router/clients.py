"""Who a key belongs to. Only hashes of keys are kept, and they are found by hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from router.errors import unauthorized


@dataclass(frozen=True, slots=True)
class Client:
    """Who is billed for service. weight: its share next to others (1.0 by default)."""

    name: str
    weight: float = 1.0


def hash_key(key: str) -> str:
    """SHA-256 of an API key, in hex. Keys are long random strings: no salt, no stretching."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


class Clients:
    """All clients by the hashes of their keys. Lookup is O(1), about 1 microsecond."""

    def __init__(self, keys: Iterable[tuple[str, Client]], admin_key_hashes: Iterable[str]) -> None:
        self._by_hash = dict(keys)
        self._admins = frozenset(admin_key_hashes)
        self.all = sorted({c.name: c for c in self._by_hash.values()}.values(), key=_name)

    def client(self, authorization: str | None) -> Client:
        """The client of an Authorization header. Raises ApiError 401."""
        client = self._by_hash.get(hash_key(_bearer(authorization)))
        if client is None:
            raise unauthorized("this API key is not known here; check it or ask your operator")
        return client

    def check_admin(self, authorization: str | None) -> None:
        """Raises ApiError 401 unless the key is an admin's."""
        if hash_key(_bearer(authorization)) not in self._admins:
            raise unauthorized("this needs the admin key")


def _name(client: Client) -> str:
    return client.name


def _bearer(authorization: str | None) -> str:
    scheme, _, key = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        raise unauthorized("send your API key as 'Authorization: Bearer KEY'")
    return key.strip()
