"""The stories of all routers, in the store: so that any router can tell any request's.

Each router writes what is new of its own, in the background and in batches; nobody waits for it. A
router's stories are one hash, capped by its own memory of them (`Stories`), which vanishes an hour
after it was last written. While the store is away, and for stories that fell into a loss, only the
router that served a request can tell of it.

key                                    type   what
fairlane:stories:1:{stories}           zset   router -> when it last wrote, in Unix seconds
fairlane:stories:1:{stories}:ROUTER    hash   request -> story, as JSON

Cost: a round trip a second and router that has anything new, with about a kilobyte a story; nothing
else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Any

import orjson
from redis.asyncio import Redis

from fairness.cost import ServiceCost
from fairness.store.breaker import BreakerOpenError
from fairness.store.contract import StoreUnavailableError
from fairness.store.link import StoreLink
from fairness.store.locate import StoreSource, settings_of
from router.explain.stories import Stories
from router.explain.story import Story

logger = logging.getLogger(__name__)

PREFIX = "fairlane:stories:1:{stories}"
WRITE_S = 1.0
BATCH = 200  # stories a round trip
TTL_S = 3600
PAGE = 200  # stories read at once
READ_TIMEOUT_S = 10.0

Facts = dict[str, Any]


class Shelf:
    """One router's view of it. Reading raises StoreUnavailableError."""

    def __init__(
        self, source: StoreSource, router: str, stories: Stories, cost: ServiceCost
    ) -> None:
        """Raises ValueError for an unreadable URL of a store."""
        self._link = StoreLink(settings_of(source), PREFIX)
        self._router = router
        self._stories = stories
        self._cost = cost
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._keep_writing())

    async def stop(self) -> None:
        """Stop, with what is not written yet left out."""
        while self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=1)  # again if need be, as in turns.py
        await self._link.aclose()

    def check(self) -> None:
        """Raises RuntimeError when nothing is written any more."""
        if self._task is not None and self._task.done():
            raise RuntimeError(f"stories are not written any more: {self._task}")

    async def find(self, request: str) -> Facts | None:
        """The facts of a request, of whichever router. Two round trips unless it was this one."""
        story = self._stories.find(request)
        if story is not None:
            return story.facts(self._cost)

        async def use(redis: Redis) -> list[str | None]:
            async with redis.pipeline(transaction=False) as pipeline:
                for router in await self._others(redis):
                    pipeline.hget(_key(router), request)
                return list(await pipeline.execute())

        found = [text for text in await self._link.call(use) if text is not None]
        return orjson.loads(found[0]) if found else None

    async def recent(self, client: str | None, limit: int) -> list[Facts]:
        """The facts of the last requests of a client (None: of all), the newest first. Reads all
        stories of all routers: for people."""
        own = (story for story in self._stories if client in (None, story.client.name))
        found = [story.facts(self._cost) for story in own]

        async def use(redis: Redis) -> None:
            for router in await self._others(redis):
                async for _, text in redis.hscan_iter(_key(router), count=PAGE):
                    facts = orjson.loads(text)
                    if client in (None, facts["client"]):
                        found.append(facts)

        await self._link.call(use, READ_TIMEOUT_S)
        found.sort(key=lambda facts: str(facts["received_at"]), reverse=True)
        return found[:limit]

    async def _others(self, redis: Redis) -> list[str]:
        routers: Any = await redis.zrangebyscore(PREFIX, time.time() - TTL_S, "+inf")
        return [router for router in routers if router != self._router]

    async def _keep_writing(self) -> None:
        while True:
            await asyncio.sleep(WRITE_S)
            try:
                while await self._write_some():
                    pass
            except BreakerOpenError as error:
                await asyncio.sleep(error.retry_in_s)
            except StoreUnavailableError as error:
                logger.warning("stories could not be written: %s", error)

    async def _write_some(self) -> bool:
        """Write a batch. Is there more?"""
        news = [story for story in self._stories if _is_news(story)][:BATCH]
        forgotten = self._stories.forgotten[:BATCH]
        if not news and not forgotten:
            return False
        versions = [(story, story.version) for story in news]
        await self._link.call(lambda redis: self._write(redis, news, forgotten))
        for story, version in versions:
            story.written = version
        del self._stories.forgotten[: len(forgotten)]
        return len(news) == BATCH

    async def _write(self, redis: Redis, news: Iterable[Story], forgotten: list[str]) -> None:
        told: dict[Any, Any] = {
            story.request: orjson.dumps(story.facts(self._cost)) for story in news
        }
        now = time.time()
        async with redis.pipeline(transaction=False) as pipeline:
            if told:
                pipeline.hset(_key(self._router), mapping=told)
            if forgotten:
                pipeline.hdel(_key(self._router), *forgotten)
            pipeline.expire(_key(self._router), TTL_S)
            pipeline.zadd(PREFIX, {self._router: now})
            pipeline.zremrangebyscore(PREFIX, "-inf", now - TTL_S)
            await pipeline.execute()


def _is_news(story: Story) -> bool:
    """A short request is written once, when it is over."""
    if story.version == story.written:
        return False
    return story.ended is not None or time.monotonic() - story.born > WRITE_S


def _key(router: str) -> str:
    return f"{PREFIX}:{router}"
