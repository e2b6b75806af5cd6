"""Routers, replicas and a real store in one process; only the engine is played.

`Turns` and `QueueLink` are the product's own, as is all that passes between them and the store. The
played engine gives every running request a token a step.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from redis.asyncio import Redis

from fairness.grant_token import GrantToken
from fairness.store.connection import SCHEMA, connect
from fairness.store.contract import (
    Call,
    ClientState,
    Grant,
    GroupState,
    QueueSettings,
    Reply,
    Sender,
    StoreUnavailableError,
    Usage,
)
from fairness.store.redis_store import RedisQueue
from fairness.store.shadow import ShadowReport
from fairness.store.stand_in import Answer, Question
from fairness.store.usage import DailyUsage, LastDays, Used, day_of, today
from replicas.lease_book import EngineCall, Lease, LeaseBook
from replicas.queue_link import LinkSettings, QueueLink
from replicas.stand_in import Shares
from router.clients import Client
from router.limits import QueueLimits
from router.stand_in import Ask
from router.turns import Turns

SETTINGS = QueueSettings(sender_ttl_ms=6_000, grant_ttl_ms=3_000)
LONGEST = 4096
PROMPT = 10
STEP_S = 0.005
TEMPORARY = ("request", "line:", "leases:", "routed:", "void:", "arrivals", "unseen", "running")


class Network:
    """The way to the store, which can be cut."""

    def __init__(self, queue: RedisQueue) -> None:
        self._queue = queue
        self.cut = False
        self.cut_off: set[str] = set()  # senders for whom it is
        self.stopped = False
        self._late: list[tuple[Sender, Call]] = []

    async def resume(self) -> None:
        """A stopped store goes on: first it does what it was told meanwhile."""
        for sender, call in self._late:
            await self._queue.execute(sender, call)
        self._late.clear()
        self.stopped = False

    async def execute(self, sender: Sender, call: Call) -> Reply:
        if self.stopped:
            await asyncio.sleep(0.3)
            self._late.append((sender, replace(call, verbs=list(call.verbs))))
            raise StoreUnavailableError("timed out")
        self._check(sender.name)
        reply = await self._queue.execute(sender, call)
        self._check(sender.name)  # cut meanwhile: it was applied, and nobody hears of it
        return reply

    async def granted(self, router: str) -> AsyncIterator[tuple[Grant, ...]]:
        self._check(router)
        async for grants in self._queue.granted(router):
            self._check(router)
            yield grants

    async def clients(self) -> list[ClientState]:
        return await self._queue.clients()

    async def groups(self) -> list[GroupState]:
        return await self._queue.groups()

    async def shadow(self) -> ShadowReport:
        return await self._queue.shadow()

    async def last_days(self, clients: Sequence[str] | None = None) -> LastDays:
        return await self._queue.last_days(clients)

    async def used_on(self, day: int, clients: Sequence[str] | None = None) -> dict[str, Used]:
        return await self._queue.used_on(day, clients)

    def _check(self, sender: str) -> None:
        if self.cut or sender in self.cut_off:
            raise StoreUnavailableError("cut")


@dataclass
class Running:
    lease: Lease
    output: int
    made: int = 0
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Replica:
    """A link and its book, with a played engine of `slots` requests."""

    def __init__(self, name: str, network: Network, slots: int) -> None:
        self.name = name
        self.slots = slots
        self.book = LeaseBook(lookahead=2, slots=slots)
        self.link = QueueLink(
            Sender("replica", name),
            f"http://{name}",
            self.book,
            exchange=self._exchange,
            queue=network,
            longest=LONGEST,
            settings=LinkSettings(report_interval_s=0.005, charge_interval_s=0.05),
        )
        self.shares = Shares(self.book, LONGEST, time.monotonic)
        self.runs: dict[str, Running] = {}
        self._ended: dict[str, Running] = {}
        self._charged: dict[str, float] = {}
        self.killed = False

    async def serve(self, token: GrantToken, output: int) -> Usage:
        """One request, as a router's would come in. Raises ConnectionError."""
        if self.killed:
            raise ConnectionError(self.name)
        lease = self.link.open(token)
        run = self.runs[token.lease] = Running(lease, output)
        call = EngineCall(input=PROMPT)
        lease.calls.append(call)
        try:
            await run.done.wait()
            call.outputs[0] = run.made
            call.complete = True
        finally:
            self.runs.pop(token.lease, None)
            self._ended[token.lease] = run
            self.link.close(lease)
        if self.killed:
            raise ConnectionError(self.name)
        return Usage(PROMPT, 0, run.made)

    async def live(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.link.run())
            tasks.create_task(self._step())

    async def _step(self) -> None:
        while True:
            await asyncio.sleep(STEP_S)
            for run in list(itertools.islice(self.runs.values(), self.slots)):
                client = run.lease.token.client
                self._charged[client] = self._charged.get(client, 0) + 2
                if run.made == 0:
                    self._charged[client] += PROMPT
                run.made += 1
                if run.made >= run.output:
                    run.done.set()
            self.link.step_done()

    async def _exchange(self, update: dict[str, Any]) -> dict[str, Any]:
        rows = []
        for place, (lease, run) in enumerate(self.runs.items()):
            runs = place < self.slots and run.made > 0
            rows.append([lease, int(not runs), int(runs), PROMPT if runs else 0, 0, run.made])
        for lease, run in self._ended.items():
            rows.append([lease, 0, 0, PROMPT if run.made else 0, 0, run.made])
        self._ended.clear()
        return {
            "leases": rows,
            "charged": dict(self._charged),
            "waiting": sum(row[1] for row in rows),
            "running": sum(row[2] for row in rows),
            "kv_usage": 0.0,
            "fits": None,
            "preemptions": 0,
        }


@dataclass
class World:
    """See `world`."""

    redis: Redis
    queue: RedisQueue
    network: Network
    replicas: dict[str, Replica]
    turns: list[Turns]
    told: dict[str, Usage] = field(default_factory=dict)
    errors: list[Exception] = field(default_factory=list)
    enough: bool = False  # floods may end
    clients: dict[str, Client] = field(default_factory=dict)  # those that are more than a name

    async def request(self, router: int, client: str, output: int) -> None:
        """One request from its submission to its end, as the router's app does it."""
        turns = self.turns[router]
        turn = turns.submit(self.clients.get(client, Client(client)), 40)
        try:
            for _ in range(4):
                grant = await turn.grant
                token = GrantToken(
                    grant.lease,
                    client,
                    grant.replica,
                    0,
                    counter=grant.counter,
                    groups=grant.groups,
                )
                try:
                    usage = await self.replicas[grant.replica].serve(token, output)
                except ConnectionError:
                    turns.retry(turn)
                    continue
                turns.answered(turn)
                self.told[client] = self.told.get(client, Usage()) + usage
                return
        except Exception as error:
            self.errors.append(error)
        finally:
            turns.leave(turn)

    async def flood(self, client: str, seconds: float, streams: int = 6, output: int = 20) -> None:
        """Requests of one client over all routers, one after the other on each stream."""
        until = time.monotonic() + seconds

        async def stream(number: int) -> None:
            while time.monotonic() < until and not self.enough:
                await self.request(number % len(self.turns), client, output)

        await asyncio.gather(*map(stream, range(streams)))

    async def leftovers(self) -> list[str]:
        prefix = f"{SCHEMA}:{{tiny}}:"
        keys = [key async for key in self.redis.scan_iter(f"{prefix}*")]
        return sorted(key for key in keys if key.removeprefix(prefix).startswith(TEMPORARY))

    async def settled(self, timeout_s: float = 15) -> None:
        """Wait until nothing waits or runs, nothing is kept of any request, and every slot is on
        offer."""
        deadline = time.monotonic() + timeout_s
        while True:
            states = await self.queue.clients()
            left = await self.leftovers()
            busy = [replica.name for replica in self.replicas.values() if replica.book.busy]
            offers = await self._offers()
            done = not left and not busy and not any(s.waiting or s.running for s in states)
            if done and all(told == has for told, has in offers.values()):
                return
            assert time.monotonic() < deadline, (left, busy, offers, states)
            await asyncio.sleep(0.05)

    async def _offers(self) -> dict[str, tuple[int, int]]:
        """Free slots of each replica that lives: as the store has it, and by its own book."""
        load = dict(await self.redis.zrange(f"{SCHEMA}:{{tiny}}:load", 0, -1, withscores=True))
        return {
            name: (-int(load.get(name, 0)), replica.book.room)
            for name, replica in self.replicas.items()
            if not replica.killed
        }

    async def charged(self) -> dict[str, Usage]:
        """What the store says each client has used, in all and in the sum over the days."""
        in_all = {
            state.client: Usage(state.input_tokens, state.cached_tokens, state.output_tokens)
            for state in await self.queue.clients()
        }
        usage = await DailyUsage.open(self.queue)
        by_day = dict.fromkeys(in_all, Usage())
        for day in range(day_of(today()) - 1, day_of(today()) + 2):  # it may be midnight
            for client, used in (await usage.on(day)).items():
                by_day[client] += (used.input, used.cached, used.output)
        assert by_day == in_all
        return in_all


@asynccontextmanager
async def world(
    url: str,
    *,
    routers: int = 2,
    replicas: int = 2,
    slots: int = 3,
    fail_closed: bool = False,
    settings: QueueSettings = SETTINGS,
) -> AsyncIterator[World]:
    """Everything running on the store at `url`."""
    redis = connect(url)
    await redis.flushall()
    queue = RedisQueue(redis, "tiny", settings)
    network = Network(queue)
    copies = {f"replica-{n}": Replica(f"replica-{n}", network, slots) for n in range(replicas)}

    async def ask(replica: str, _url: str, question: Question) -> Answer:
        if copies[replica].killed:
            raise ConnectionError(replica)
        return Answer.from_json(copies[replica].shares.answer(question).to_json())

    way: Ask | None = None if fail_closed else ask
    turns = [
        Turns(f"router-{n}", network, QueueLimits(), settings, ask=way) for n in range(routers)
    ]
    async with AsyncExitStack() as stack:
        lives = [asyncio.create_task(replica.live()) for replica in copies.values()]
        for life in lives:
            stack.callback(life.cancel)
        for one in turns:
            one.start()
            stack.push_async_callback(one.stop)
        async with asyncio.timeout(5):
            while any(len(one.replicas) < replicas for one in turns):
                await asyncio.sleep(0.02)
        made = World(redis, queue, network, copies, turns)
        yield made
        for life in lives:
            assert not life.done(), life
    await redis.aclose()
