"""Every store that the global queue has, driven by hand on a clock that the test holds."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from redis.asyncio import Redis

from fairness.groups import Group
from fairness.limits import MINUTE_MS, Terms
from fairness.store.connection import SCHEMA, connect
from fairness.store.contract import (
    Call,
    ClientState,
    GlobalQueue,
    Grant,
    QueueSettings,
    Reply,
    Sender,
    Usage,
)
from fairness.store.memory_limits import Meter
from fairness.store.memory_store import MemoryPool, MemoryQueue
from fairness.store.redis_store import RedisQueue
from fairness.store.usage import DAY_MS, DailyUsage, Used

ROUTER = Sender("router", "router-1")
OTHER_ROUTER = Sender("router", "router-2")
REPLICA = Sender("replica", "replica-1")
OTHER_REPLICA = Sender("replica", "replica-2")

POOL = "tiny"
PREFIX = f"{SCHEMA}:{{{POOL}}}:"
METER = struct.Struct("<dddddIIQ")  # as in lua/limits.lua
# Keys of what has not ended; none is left when nothing waits or runs.
TEMPORARY = ("requests", "line:", "leases:", "routed:", "void:", "arrivals", "unseen", "backlogged")


@dataclass
class Clock:
    """Milliseconds, moved by hand."""

    now: int = 1_000_000

    def __call__(self) -> int:
        return self.now

    def pass_ms(self, milliseconds: int) -> None:
        self.now += milliseconds


@dataclass
class Pool:
    """One pool in one store: every method is one call of one sender."""

    queue: GlobalQueue
    clock: Clock
    settings: QueueSettings
    redis: Redis | None = None  # None: in memory
    versions: int = 0
    submitted: list[str] = field(default_factory=list)
    told: set[str] = field(default_factory=set)

    async def call(self, by: Sender, call: Call) -> Reply:
        return await self.queue.execute(by, call)

    async def submit(
        self,
        request: str,
        client: str,
        weight: float = 1,
        size: int = 40,
        *,
        priority: int = 0,
        groups: Iterable[Group] = (),
        terms: Terms | None = None,
        by: Sender = ROUTER,
    ) -> tuple[Grant, ...]:
        self.submitted.append(request)
        call = Call()
        call.submit(request, client, weight, size, priority=priority, groups=groups, terms=terms)
        return (await self.call(by, call)).grants

    async def reconcile_all(self) -> list[Grant]:
        """Grants of the router's requests that this has not told of before."""
        call = Call()
        for request in self.submitted:
            call.reconcile(request)
        grants = [g for g in (await self.call(ROUTER, call)).grants if g.lease not in self.told]
        self.told |= {grant.lease for grant in grants}
        return grants

    async def offer(self, limit: int, arrived: int = 0, by: Sender = REPLICA) -> Reply:
        call = Call()
        self.versions += 1
        call.offer(f"http://{by.name}", limit, arrived, self.versions, 4096)
        return await self.call(by, call)

    async def report(self, verb: str, lease: str, usage: Usage, by: Sender = REPLICA) -> Reply:
        call = Call()
        getattr(call, verb)(lease, usage)
        return await self.call(by, call)

    async def route(self, verb: str, name: str, by: Sender = ROUTER) -> Reply:
        call = Call()
        getattr(call, verb)(name)
        return await self.call(by, call)

    async def set_policy(self, name: str, reason: str) -> None:
        call = Call()
        call.policy(name, reason)
        await self.call(ROUTER, call)

    async def beat(self, by: Sender = ROUTER) -> Reply:
        call = Call()
        call.heartbeat()
        return await self.call(by, call)

    async def state(self, client: str) -> tuple[float, int, int]:
        """(counter, waiting, running)."""
        for state in await self.queue.clients():
            if state.client == client:
                return state.counter, state.waiting, state.running
        return 0.0, 0, 0

    async def client(self, name: str) -> ClientState:
        (state,) = [state for state in await self.queue.clients() if state.client == name]
        return state

    async def usage(self, client: str = "alice") -> dict[int, Used]:
        """What a client used: day -> usage, of all days until now on which it used anything."""
        usage = await DailyUsage.open(self.queue)
        days = {day: await usage.on(day) for day in range(self.clock() // DAY_MS + 2)}
        return {day: used[client] for day, used in days.items() if client in used}

    async def kept_days(self) -> set[int]:
        """Days of which anything is kept, but for clients' last ones on a server."""
        if self.redis is None:
            assert isinstance(self.queue, MemoryQueue)
            return set(self.queue.pool.usage._days)
        keys = [key async for key in self.redis.scan_iter(f"{PREFIX}usage:*")]
        return {int(key.rpartition(":")[2]) for key in keys}

    async def idle_clients(self) -> list[str]:
        """Clients with neither waiting nor running requests that are remembered all the same."""
        if self.redis is None:
            assert isinstance(self.queue, MemoryQueue)
            v = self.queue.pool._tree.root.v
        else:
            v = float(await self.redis.hget(f"{PREFIX}pool", "virtual_time") or 0)
        states = await self.queue.clients()
        return [s.client for s in states if not s.waiting and not s.running and s.counter > v]

    async def leftovers(self) -> list[str]:
        """What should be gone when nothing is waiting or running."""
        if self.redis is None:
            assert isinstance(self.queue, MemoryQueue)
            return [kind for kind, count in self.queue.pool.leftovers().items() if count]
        keys = [key async for key in self.redis.scan_iter(f"{PREFIX}*")]
        left = [key for key in keys if key.removeprefix(PREFIX).startswith(TEMPORARY)]
        running = [state.client for state in await self.queue.clients() if state.running]
        meters = [name for name, of in (await self.meters()).items() if under_way(of)]
        return sorted(left + running + meters)

    async def meters(self) -> dict[str, Meter]:
        """What levels with limits have spent and under way, of those that have anything."""
        if self.redis is None:
            assert isinstance(self.queue, MemoryQueue)
            return telling(self.queue.pool.meters.meters, self.clock)
        return telling(await stored_meters(self.redis), self.clock)

    async def forget_everything(self) -> None:
        """The store comes back empty."""
        if self.redis is None:
            assert isinstance(self.queue, MemoryQueue)
            fresh = MemoryPool(self.settings, self.clock, self.queue._publish)
            self.queue.pool = fresh
        else:
            await self.redis.flushall()

    @asynccontextmanager
    async def listening(self, router: Sender = ROUTER) -> AsyncIterator[list[Grant]]:
        """Grants that the router hears of while the context is open."""
        heard: list[Grant] = []

        async def listen() -> None:
            async for grants in self.queue.granted(router.name):
                heard.extend(grants)

        task = asyncio.create_task(listen())
        await asyncio.sleep(0.1)
        try:
            yield heard
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def stored_meters(redis: Redis) -> dict[str, Meter]:
    """Those of the pool on a server."""
    raw = await redis.execute_command("HGETALL", f"{PREFIX}meters", NEVER_DECODE=True)
    found = {}
    for name, record in raw.items():
        at, requests, tokens, request_rate, token_rate, *counts = METER.unpack(record)
        rates = int(request_rate), int(token_rate)
        found[name.decode()] = Meter(int(at), requests, tokens, *rates, *counts)
    return found


def telling(meters: dict[str, Meter], clock: Clock) -> dict[str, Meter]:
    """Without those that are as if they were not there."""
    return {
        name: meter for name, meter in meters.items() if under_way(meter) or spent(meter, clock)
    }


def under_way(meter: Meter) -> int:
    """Anything in flight or queued?"""
    return meter.in_flight + meter.queued + meter.bytes


def spent(meter: Meter, clock: Clock) -> bool:
    """Is anything left of what was spent?"""
    minutes = max(0, clock() - meter.at) / MINUTE_MS
    return (
        meter.requests > meter.request_rate * minutes or meter.tokens > meter.token_rate * minutes
    )


@asynccontextmanager
async def opened(url: str | None, settings: QueueSettings) -> AsyncIterator[Pool]:
    """A pool in the empty database at `url`, or in memory."""
    clock = Clock()
    if url is None:
        yield Pool(MemoryQueue(settings, clock), clock, settings)
        return
    redis = connect(url)
    try:
        yield Pool(RedisQueue(redis, POOL, settings, clock), clock, settings, redis)
    finally:
        await redis.aclose()
