"""One process's link to the server that holds one key: find it, keep it, find it again.

A connection lives until its first failure, whatever that was: the server is gone, it has become a
replica (READONLY), the slot has moved (MOVED), it is loading, it does not know our password any
more. The next call looks for the server anew and logs in anew. That is one rule instead of one for
each of a dozen error codes, and a needless reconnection costs a millisecond.

A breaker stands in front, so that a dead store costs at most one caller at a time its patience.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from fairness.store.breaker import Breaker
from fairness.store.connection import Node, connect_to
from fairness.store.contract import CallRefusedError, StoreUnavailableError
from fairness.store.locators import Locator, locator_of
from fairness.store.settings import StoreSettings

logger = logging.getLogger(__name__)
T = TypeVar("T")


class StoreLink:
    """Calls to the server that holds `key`. Nothing is opened before the first of them."""

    def __init__(self, settings: StoreSettings, key: str, locator: Locator | None = None) -> None:
        """Raises ValueError for a URL that can't be read."""
        self._settings = settings
        self._key = key
        self._locator = locator or locator_of(settings)
        self._breaker = Breaker(time.monotonic, random.random)
        self._finding = asyncio.Lock()
        self._node: Node | None = None
        self._redis: Redis | None = None
        self._users: set[asyncio.Timeout] = set()  # of the connection, through `while_linked`
        self._closing: set[asyncio.Task[None]] = set()

    async def call(self, use: Callable[[Redis], Awaitable[T]], timeout_s: float | None = None) -> T:
        """What `use` returns for a client of the server; it may be another one each time.

        timeout_s: instead of the configured limit. Raises StoreUnavailableError: the server can't
        be found, reached or used now, or (BreakerOpenError) is not even asked. Raises
        CallRefusedError as `use` does.
        """
        permit = self._breaker.admit()
        tell = self._breaker.dropped  # unless it ends: a cancelled call says nothing of the server
        limit_s = self._settings.call_timeout_s if timeout_s is None else timeout_s
        redis = None
        try:
            async with asyncio.timeout(limit_s):
                redis = await self._linked()
                result = await use(redis)
                tell = self._breaker.succeeded
                return result
        except CallRefusedError:
            tell = self._breaker.succeeded  # the server is well
            raise
        except (StoreUnavailableError, RedisError, OSError) as error:
            tell = self._breaker.failed
            if redis is not None:
                self._drop(redis)
            raise self._told(error, limit_s) from error
        finally:
            tell(permit)

    @contextlib.asynccontextmanager
    async def while_linked(self, redis: Redis) -> AsyncIterator[None]:
        """Raises StoreUnavailableError inside as soon as `redis` is not what calls use any more.

        For what listens without ever calling: it would not notice that the server has moved.
        """
        moved = "the connection to the store was given up; subscribe anew"
        if redis is not self._redis:
            raise StoreUnavailableError(moved)
        try:
            async with asyncio.timeout(None) as timeout:
                self._users.add(timeout)
                try:
                    yield
                finally:
                    self._users.discard(timeout)
        except TimeoutError as error:
            raise StoreUnavailableError(moved) from error

    async def aclose(self) -> None:
        """Close the connection. A later call opens one again."""
        if self._redis is not None:
            self._drop(self._redis)
        await asyncio.gather(*self._closing)

    async def _linked(self) -> Redis:
        async with self._finding:
            if self._redis is None:
                node = await self._locator.locate(self._key)
                if self._node is not None and node != self._node:
                    logger.warning("the store has moved from %s to %s", self._node, node)
                self._node = node
                self._redis = connect_to(node, self._settings)
            return self._redis

    def _drop(self, redis: Redis) -> None:
        """Give a connection up, unless that is done; end what uses it."""
        if redis is not self._redis:
            return
        self._redis = None
        now = asyncio.get_running_loop().time()
        for timeout in self._users:
            timeout.reschedule(now)
        # Saying goodbye to a server that does not answer takes a while: nobody waits for it.
        task = asyncio.create_task(_close(redis))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _told(self, error: Exception, limit_s: float) -> StoreUnavailableError:
        if isinstance(error, StoreUnavailableError):
            return error
        where = self._node or "the store"
        if isinstance(error, TimeoutError):
            return StoreUnavailableError(f"{where} did not answer in {limit_s:g} s")
        return StoreUnavailableError(f"{where}: {error}")


async def _close(redis: Redis) -> None:
    with contextlib.suppress(RedisError, OSError):  # it is closed all the same
        await redis.aclose()
