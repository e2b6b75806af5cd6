"""Where the store is: a URL, or something that knows the URL by now (the embedded server)."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable
from typing import Protocol

from redis.asyncio import Redis

from fairness.store.contract import (
    Call,
    ClientState,
    Grant,
    QueueSettings,
    Reply,
    Sender,
    StoreUnavailableError,
)
from fairness.store.redis_store import RedisQueue, connect, shared_secret

GRANT_KEY_VARIABLE = "FAIRLANE_GRANT_KEY"


class _UrlMethod(Protocol):
    def remote(self) -> Awaitable[str]: ...


class UrlHandle(Protocol):
    """A handle of the deployment that runs the embedded server (this package needs no Ray)."""

    @property
    def url(self) -> _UrlMethod: ...


StoreSource = str | UrlHandle


async def _url_of(source: StoreSource) -> str:
    return source if isinstance(source, str) else await source.url.remote()


class LocatedQueue:
    """`GlobalQueue` in Redis or Valkey that finds its server again when it has moved.

    A server that comes back at the same URL is reconnected to by its client; after a failure the
    source is asked again, and only another URL makes another client.
    """

    def __init__(self, source: StoreSource, url: str, pool: str, settings: QueueSettings) -> None:
        self._source = source
        self._pool = pool
        self._settings = settings
        self._url = url
        self._redis: Redis = connect(url)
        self._queue = RedisQueue(self._redis, pool, settings)

    @classmethod
    async def open(cls, source: StoreSource, pool: str, settings: QueueSettings) -> LocatedQueue:
        """Ask the source where the store is."""
        return cls(source, await _url_of(source), pool, settings)

    async def execute(self, sender: Sender, call: Call) -> Reply:
        """One round trip. Raises StoreUnavailableError, after having looked for the store."""
        try:
            return await self._queue.execute(sender, call)
        except StoreUnavailableError:
            await self._look_again()
            raise

    async def granted(self, router: str) -> AsyncIterator[tuple[Grant, ...]]:
        """Grants published for `router`. Raises StoreUnavailableError."""
        async for grants in self._queue.granted(router):
            yield grants

    async def clients(self) -> list[ClientState]:
        """Every client the pool has heard of."""
        return await self._queue.clients()

    async def _look_again(self) -> None:
        try:
            url = await _url_of(self._source)
        except Exception as error:  # a handle can fail in as many ways as Ray can
            raise StoreUnavailableError(f"cannot locate the store: {error}") from error
        if url != self._url:
            old, self._url = self._redis, url
            self._redis = connect(url)
            self._queue = RedisQueue(self._redis, self._pool, self._settings)
            await old.aclose()


async def grant_key(source: StoreSource) -> bytes:
    """The key that signs grants: from the environment, or made once and shared by the store."""
    given = os.environ.get(GRANT_KEY_VARIABLE)
    if given:
        return given.encode()
    redis = connect(await _url_of(source))
    try:
        return await shared_secret(redis, "grant-key")
    finally:
        await redis.aclose()
