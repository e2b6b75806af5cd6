"""What is kept beside a pool's queue in Redis or Valkey: who looks at it, what was seen, what its
replicas tell of themselves. And how to look.

key                 type    what
..:observer         string  the router that looks, until it expires
..:observation      string  JSON, the last one, until it expires
..:history          stream  `point`: JSON; the last `HISTORY`
..:history:coarse   stream  the same, one a minute; the last `COARSE_HISTORY`
..:facts            hash    replica -> JSON, what it told of itself

Bounded: points are about a kilobyte, so both streams together hold some megabytes. A look reads
pages of `PAGE` records, so it never keeps the store from others for longer than a fraction of a
millisecond, and takes a round trip a page. It uses a connection of its own.
"""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from functools import cache, partial
from importlib.resources import files
from typing import Any

import orjson
from redis.asyncio import Redis

from fairness.observe.comparison import Comparison, Summary
from fairness.observe.history import Point
from fairness.observe.observation import (
    Observation,
    ReplicaFacts,
    ReplicaRow,
    facts_from_json,
)
from fairness.observe.stated_bound import Sizes
from fairness.store.connection import SCHEMA
from fairness.store.contract import GroupState, QueueSettings
from fairness.store.link import StoreLink
from fairness.store.locate import StoreSource, settings_of
from fairness.store.redis_store import client_state, group_state

PAGE = 400  # records
HISTORY_PAGE = 100  # points
HISTORY = 1800  # an hour, at an observation every two seconds
COARSE_HISTORY = 1440  # a day
LOOK_TIMEOUT_S = 60.0
PUBLISH_MS = 10_000  # at least, until an observation is too old to be shown

# How the records of a request (to when it was queued) and of an offer begin, in lua/layouts.lua.
REQUEST = struct.Struct("<BdQQQid")
OFFER = struct.Struct("<dddd")


class Board:
    """One pool's. Every method raises StoreUnavailableError."""

    def __init__(self, link: StoreLink, pool: str, settings: QueueSettings) -> None:
        self._link = link
        self._prefix = f"{SCHEMA}:{{{pool}}}:"
        self._settings = settings

    @classmethod
    def open(cls, source: StoreSource, pool: str, settings: QueueSettings) -> Board:
        """In the store at `source`, which may be away. Raises ValueError for an unreadable URL."""
        return cls(StoreLink(settings_of(source), f"{SCHEMA}:{{{pool}}}"), pool, settings)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._link.aclose()

    # Every router and replica

    async def latest(self) -> Observation | None:
        """What was seen last; None if that is too long ago. One GET."""
        text: Any = await self._link.call(lambda redis: redis.get(self._key("observation")))
        return None if text is None else Observation.from_json(text)

    async def history(self, since_ms: int = 0, *, coarse: bool = False) -> list[Point]:
        """Points that were told after `since_ms` (of the store's clock), oldest first."""
        key = self._key("history:coarse" if coarse else "history")
        rows: Any = await self._link.call(lambda redis: redis.xrange(key, min=f"({since_ms}"))
        return [Point.from_json(row["point"]) for _, row in rows]

    async def history_pages(
        self, since_ms: int = 0, *, coarse: bool = False
    ) -> AsyncIterator[list[Point]]:
        """The same, a round trip a page, so that reading all of it keeps nobody waiting."""
        key = self._key("history:coarse" if coarse else "history")
        last = str(since_ms)
        while True:
            read = partial(_page_after, key=key, last=last)
            rows: Any = await self._link.call(read)
            if not rows:
                return
            last = rows[-1][0]
            yield [Point.from_json(row["point"]) for _, row in rows]

    async def tell_facts(self, replica: str, facts: ReplicaFacts) -> None:
        """What a replica has to say of itself."""
        text = orjson.dumps(facts).decode()

        async def tell(redis: Redis) -> None:
            await redis.hset(self._key("facts"), replica, text)

        await self._link.call(tell)

    # The observer

    async def hold(self, observer: str, ttl_ms: int) -> tuple[bool, Observation | None]:
        """Be the one who looks, for so long. Is it this one? And if not, what was seen last? One
        round trip."""
        held, *seen = await self._run("hold", ["observer", "observation"], observer, ttl_ms)
        latest = Observation.from_json(seen[0]) if seen and seen[0] else None
        return bool(held), latest

    async def resign(self, observer: str) -> bool:
        """Be it no longer. Was it this one?"""
        return bool(await self._run("resign", ["observer"], observer))

    async def publish(
        self, seen: Observation, point: Point, coarse: Point | None, ttl_ms: int
    ) -> bool:
        """Tell what was seen. False: another has been elected meanwhile."""
        told = await self._run(
            "publish",
            ["observer", "observation", "history", "history:coarse"],
            seen.observer,
            ttl_ms,
            seen.to_json().decode(),
            max(PUBLISH_MS, 3 * seen.interval_ms),
            point.to_json().decode(),
            HISTORY,
            "" if coarse is None else coarse.to_json().decode(),
            COARSE_HISTORY,
        )
        return bool(told)

    async def summary(self) -> Summary:
        """The pool but for its clients. O(replicas), two round trips."""
        return await self._link.call(self._summary)

    async def groups(self) -> list[GroupState]:
        """All groups."""

        async def read(redis: Redis) -> list[GroupState]:
            pages = self._pages(redis, "groups")
            return [group_state(n.decode(), r, {}) async for page in pages for n, r in page.items()]

        return await self._link.call(read, LOOK_TIMEOUT_S)

    async def clients(self, comparison: Comparison) -> None:
        """Hand all clients to `comparison`, page by page. O(clients)."""

        async def read(redis: Redis) -> None:
            async for page in self._pages(redis, "clients"):
                comparison.add(client_state(n.decode(), r, {}) for n, r in page.items())

        await self._link.call(read, LOOK_TIMEOUT_S)

    async def _summary(self, redis: Redis) -> Summary:
        first = _Binary(redis)
        first.add("TIME")
        pool_fields = (
            *("policy", "virtual_time", "output_average", "output_error"),
            *("largest", "most", "servers"),
        )
        first.add("HMGET", self._key("pool"), *pool_fields)
        first.add("ZRANGE", self._key("arrivals"), 0, 0)
        first.add("HGETALL", self._key("offers"))
        first.add("ZRANGE", self._key("replicas"), 0, -1, "WITHSCORES")
        first.add("HGETALL", self._key("facts"))
        clock, pool, oldest, offers, heard, facts = await first.run()
        now = int(clock[0]) * 1000 + int(clock[1]) // 1000
        silent = now - self._settings.sender_ttl_ms
        live = [name for name, at in _pairs(heard) if float(at) > silent]
        offers, facts = dict(_pairs(offers)), dict(_pairs(facts))
        live = [name for name in live if name in offers]

        second = _Binary(redis)
        for name in live:
            second.add("SCARD", self._key("leases:") + name.decode())
        second.add("HGET", self._key("requests"), oldest[0] if oldest else b"")
        if gone := set(facts).difference(name for name, _ in _pairs(heard)):
            second.add("HDEL", self._key("facts"), *gone)
        *running, record = (await second.run())[: len(live) + 1]
        policy, virtual_time, average, error, largest, most, servers = pool
        queued = now if record is None else REQUEST.unpack_from(record)[-1]
        return Summary(
            at_ms=now,
            policy=(policy or b"vtc").decode(),
            virtual_time=float(virtual_time or 0),
            oldest_wait_ms=max(0, now - int(queued)),
            prediction=float(average or 0),
            prediction_error=float(error or 0),
            sizes=Sizes(float(largest or 0), int(float(most or 0)), int(float(servers or 0))),
            replicas=tuple(
                _replica(name.decode(), offers[name], leases, facts.get(name))
                for name, leases in zip(live, running, strict=True)
            ),
        )

    async def _pages(self, redis: Redis, kind: str) -> AsyncIterator[dict[bytes, bytes]]:
        cursor: Any = None
        while cursor != 0:
            scan: Any = redis.execute_command(  # type: ignore[no-untyped-call]
                "HSCAN", self._key(kind), cursor or 0, "COUNT", PAGE, NEVER_DECODE=True
            )
            cursor, page = await scan
            yield page

    async def _run(self, script: str, keys: list[str], *arguments: str | int) -> Any:
        names = [self._key(key) for key in keys]

        async def run(redis: Redis) -> Any:
            return await redis.register_script(_script(script))(keys=names, args=arguments)

        return await self._link.call(run)

    def _key(self, kind: str) -> str:
        return self._prefix + kind


async def _page_after(redis: Redis, *, key: str, last: str) -> Any:
    return await redis.xrange(key, min=f"({last}", count=HISTORY_PAGE)


@cache
def _script(name: str) -> str:
    return (files("fairness.observe") / "lua" / f"{name}.lua").read_text(encoding="utf-8")


class _Binary:
    """Some commands in one round trip; answers are not decoded."""

    def __init__(self, redis: Redis) -> None:
        self._pipeline = redis.pipeline(transaction=False)

    def add(self, *command: Any) -> None:
        self._pipeline.execute_command(*command, NEVER_DECODE=True)

    async def run(self) -> list[Any]:
        async with self._pipeline as pipeline:
            return await pipeline.execute()


def _pairs(flat: Any) -> list[tuple[Any, Any]]:
    if isinstance(flat, dict):
        return list(flat.items())
    if flat and isinstance(flat[0], tuple | list):
        return [(name, value) for name, value in flat]
    return list(zip(*[iter(flat)] * 2, strict=True))


def _replica(name: str, offer: bytes, running: int, facts: bytes | None) -> ReplicaRow:
    limit, _, _, credits = OFFER.unpack_from(offer)
    told = None
    if facts is not None:
        told = facts_from_json(facts)
    return ReplicaRow(
        name, offer[OFFER.size :].decode(), limit > 0, max(0, int(credits)), running, told
    )
