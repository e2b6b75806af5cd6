"""The global queue wherever its store is by now."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

from redis.asyncio import Redis

from fairness.store.breaker import BreakerOpenError
from fairness.store.connection import SCHEMA, shared_secret
from fairness.store.contract import (
    Call,
    ClientState,
    Grant,
    GroupState,
    QueueSettings,
    Reply,
    Sender,
    StoreUnavailableError,
)
from fairness.store.link import StoreLink
from fairness.store.redis_store import RedisQueue
from fairness.store.settings import StoreSettings, UrlHandle
from fairness.store.shadow import ShadowReport
from fairness.store.usage import LastDays, Used

logger = logging.getLogger(__name__)

GRANT_KEY_VARIABLE = "FAIRLANE_GRANT_KEY"
SECRET = "grant-key"
PATIENCE_S = 30.0  # of a process that starts before its store
PAUSE_S = 0.2
CLIENTS_TIMEOUT_S = 10.0  # to read all clients there are

StoreSource = StoreSettings | str | UrlHandle
"""Settings; or only a URL, or a handle that tells it, with the defaults for the rest."""


def settings_of(source: StoreSource) -> StoreSettings:
    """The settings that a source stands for."""
    return source if isinstance(source, StoreSettings) else StoreSettings(source)


class LocatedQueue:
    """`GlobalQueue` in Redis or Valkey that finds its server, and finds it again."""

    def __init__(self, link: StoreLink, pool: str, settings: QueueSettings) -> None:
        self._link = link
        self._pool = pool
        self._settings = settings
        self._redis: Redis | None = None
        self._queue: RedisQueue | None = None

    @classmethod
    async def open(cls, source: StoreSource, pool: str, settings: QueueSettings) -> LocatedQueue:
        """Prepare; the store is looked for at the first call, and may be away until then.

        Raises ValueError for a URL that can't be read.
        """
        return cls(StoreLink(settings_of(source), f"{SCHEMA}:{{{pool}}}"), pool, settings)

    async def execute(self, sender: Sender, call: Call) -> Reply:
        """One round trip. Raises StoreUnavailableError, CallRefusedError."""
        return await self._link.call(lambda redis: self._on(redis).execute(sender, call))

    async def granted(self, router: str) -> AsyncIterator[tuple[Grant, ...]]:
        """Grants published for `router`. Raises StoreUnavailableError, also when the store has
        moved: subscribe anew."""
        redis = await self._link.call(_answering)
        async with aclosing(self._on(redis).granted(router)) as stream:
            while True:
                async with self._link.while_linked(redis):
                    grants = await anext(stream)
                yield grants

    async def clients(self) -> list[ClientState]:
        """Every client the pool has heard of. Raises StoreUnavailableError."""
        return await self._link.call(lambda redis: self._on(redis).clients(), CLIENTS_TIMEOUT_S)

    async def groups(self) -> list[GroupState]:
        """Every group the pool has heard of. Raises StoreUnavailableError."""
        return await self._link.call(lambda redis: self._on(redis).groups(), CLIENTS_TIMEOUT_S)

    async def shadow(self) -> ShadowReport:
        """What a fair order would have changed. Raises StoreUnavailableError."""
        return await self._link.call(lambda redis: self._on(redis).shadow(), CLIENTS_TIMEOUT_S)

    async def last_days(self, clients: Sequence[str] | None = None) -> LastDays:
        """What clients used on their last days. Raises StoreUnavailableError."""
        return await self._link.call(
            lambda redis: self._on(redis).last_days(clients), CLIENTS_TIMEOUT_S
        )

    async def used_on(self, day: int, clients: Sequence[str] | None = None) -> dict[str, Used]:
        """What clients used on a day before that. Raises StoreUnavailableError."""
        return await self._link.call(
            lambda redis: self._on(redis).used_on(day, clients), CLIENTS_TIMEOUT_S
        )

    async def aclose(self) -> None:
        """Close the connection."""
        await self._link.aclose()

    def _on(self, redis: Redis) -> RedisQueue:
        if self._queue is None or redis is not self._redis:
            self._redis, self._queue = redis, RedisQueue(redis, self._pool, self._settings)
        return self._queue


class GrantKey:
    """The key that signs grants, as it is by now."""

    def __init__(self, source: StoreSource, key: bytes) -> None:
        self._source = source
        self._key = key
        self._sharing: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, source: StoreSource) -> GrantKey:
        """See `grant_key`."""
        return cls(source, await grant_key(source))

    def now(self) -> bytes:
        """The key."""
        return self._key

    def share(self) -> None:
        """The store has forgotten things, maybe the key: put it back there, in the background."""
        if self._sharing is None or self._sharing.done():
            self._sharing = asyncio.create_task(self._share())

    async def _share(self) -> None:
        try:
            self._key = await share_grant_key(self._source, self._key)
        except StoreUnavailableError as error:
            logger.warning("the grant key could not be shared anew: %s", error)


async def grant_key(source: StoreSource) -> bytes:
    """The key that signs grants: from the environment, or made once and shared by the store.

    Raises StoreUnavailableError when the store stays away for `PATIENCE_S`.
    """
    given = _given_key()
    return given or await _shared_key(source, None)


async def share_grant_key(source: StoreSource, key: bytes) -> bytes:
    """Put the key into a store that has lost it; return the one in force from now on.

    That is another one than `key` if a newcomer was faster and has made one: then all others have
    to take it over. Does nothing when the environment names the key. Raises
    StoreUnavailableError.
    """
    given = _given_key()
    return given or await _shared_key(source, key)


def _given_key() -> bytes:
    return os.environ.get(GRANT_KEY_VARIABLE, "").encode()


async def _shared_key(source: StoreSource, known: bytes | None) -> bytes:
    link = StoreLink(settings_of(source), f"{SCHEMA}:secret:{SECRET}")
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    try:
        while True:
            try:
                return await link.call(lambda redis: shared_secret(redis, SECRET, known))
            except StoreUnavailableError as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                pause_s = error.retry_in_s if isinstance(error, BreakerOpenError) else PAUSE_S
                await asyncio.sleep(pause_s)
    finally:
        await link.aclose()


async def _answering(redis: Redis) -> Redis:
    await redis.ping()
    return redis
