"""A client served in one pool is owed less in the others: the verb, and who tells it."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairness.cost import ServiceCost
from fairness.grant_token import GrantToken
from fairness.groups import Group
from fairness.store.connection import connect
from fairness.store.contract import Call, QueueSettings, Reply, Sender, StoreUnavailableError, Usage
from fairness.store.memory_store import MemoryQueue
from fairness.store.redis_store import RedisQueue
from replicas.lease_book import EngineCall, Lease, LeaseBook
from replicas.neighbours import GIVE_UP_S, Neighbour, Neighbours, NeighbourSettings
from tests.integration.stores import OTHER_REPLICA, REPLICA, Clock, Pool

pytestmark = pytest.mark.integration

NEIGHBOUR = Sender("neighbour", "replica-of-another-pool")
HOUR_MS = 3_600_000
BEAT_MS = 4_500
NO_LIMIT = 1e12
NUMBERS = iter(range(1, 1_000_000))


async def serve_elsewhere(
    pool: Pool,
    client: str,
    service: float,
    *,
    debt: float = NO_LIMIT,
    groups: tuple[Group, ...] = (),
    number: int = 0,
) -> Reply:
    number = number or next(NUMBERS)
    call = Call(number=number, acked=number - 1)
    call.served_elsewhere(client, 1.0, service, debt, groups)
    return await pool.call(NEIGHBOUR, call)


async def test_who_was_served_elsewhere_goes_last_here(pool: Pool) -> None:
    await pool.offer(0)
    await pool.beat()  # one replica lives
    await serve_elsewhere(pool, "alice", 100)
    for n, client in enumerate(["bob", "alice", "alice", "bob"]):
        await pool.submit(f"{client}-{n}", client, size=40)
    order = []
    for limit in range(1, 5):
        await pool.offer(limit)
        (grant,) = await pool.reconcile_all()
        order.append(grant.request.partition("-")[0])
        await pool.report("settle", grant.lease, Usage(10, 0, 20))
    assert order == ["bob", "bob", "alice", "alice"]
    assert (await pool.client("alice")).service == 100  # of what it used here


async def test_who_is_idle_here_is_remembered_until_those_here_have_caught_up(pool: Pool) -> None:
    await pool.offer(0)
    await pool.beat()
    await serve_elsewhere(pool, "alice", 100)
    assert await pool.state("alice") == (100, 0, 0)
    assert await pool.idle_clients() == ["alice"]
    for n in range(8):  # bob receives more than that
        await pool.submit(f"b{n}", "bob", size=40)
    for limit in range(1, 8):
        await pool.offer(limit)
        (grant,) = await pool.reconcile_all()
        await pool.report("settle", grant.lease, Usage(10, 0, 20))
    await pool.submit("c", "carol")  # lifted to bob, and so is V
    assert await pool.idle_clients() == []


async def test_a_debt_has_a_limit_for_each_live_replica(pool: Pool) -> None:
    await serve_elsewhere(pool, "alice", 500, debt=30)
    assert await pool.state("alice") == (0, 0, 0)  # no replica, nobody whom it could stand behind
    for replica in (REPLICA, OTHER_REPLICA):
        await pool.offer(0, by=replica)
    await pool.beat()
    await serve_elsewhere(pool, "alice", 50, debt=30)
    assert (await pool.state("alice"))[0] == 50
    await serve_elsewhere(pool, "alice", 500, debt=30)
    assert (await pool.state("alice"))[0] == 60
    await serve_elsewhere(pool, "alice", -20, debt=0)
    assert (await pool.state("alice"))[0] == 40  # what was too much is given back
    await serve_elsewhere(pool, "alice", 7, debt=0)
    assert (await pool.state("alice"))[0] == 40  # and a counter beyond the limit stays


async def test_groups_are_charged_by_their_weights(pool: Pool) -> None:
    await pool.offer(0)
    await pool.beat()
    acme, team = Group("acme/", 2.0), Group("acme/ml/", 4.0)
    await serve_elsewhere(pool, "alice", 100, groups=(acme, team))
    counters = {state.group: state.counter for state in await pool.queue.groups()}
    assert counters == {"acme/": 50, "acme/ml/": 25}
    assert (await pool.client("alice")).group == "acme/ml/"
    await pool.submit("r1", "alice")  # in no group any more, and waiting
    await serve_elsewhere(pool, "alice", 100, groups=(acme, team))
    counters = {state.group: state.counter for state in await pool.queue.groups()}
    assert counters == {"acme/": 50, "acme/ml/": 25}


async def pass_beating(pool: Pool, milliseconds: int) -> None:
    for _ in range(milliseconds // BEAT_MS):
        pool.clock.pass_ms(BEAT_MS)
        await pool.beat(REPLICA)


async def test_a_call_counts_once_however_late_it_comes_again(pool: Pool) -> None:
    await pool.offer(0)
    await pool.beat()
    for number in (1, 1, 2, 1, 2):
        await serve_elsewhere(pool, "alice", 10, number=number)
    assert (await pool.state("alice"))[0] == 20
    await pass_beating(pool, HOUR_MS - BEAT_MS)  # others would long have been taken for dead
    await serve_elsewhere(pool, "alice", 10, number=2)
    assert (await pool.state("alice"))[0] == 20
    await pass_beating(pool, HOUR_MS)
    reply = await serve_elsewhere(pool, "alice", 10, number=3)
    assert reply.lost  # after an hour it is forgotten
    assert (await pool.state("alice"))[0] == 30


class Flaky:
    """The way to a queue on which calls and replies are lost, and calls come again late."""

    def __init__(self, queue: Any, chance: random.Random) -> None:
        self._queue, self._chance = queue, chance
        self._late: list[Call] = []
        self.well = False
        self.calls = 0

    async def execute(self, sender: Sender, call: Call) -> Reply:
        self.calls += 1
        self._late.append(replace(call, verbs=list(call.verbs)))
        if self.well:
            return await self._queue.execute(sender, call)
        fate = self._chance.random()
        if fate < 0.3:
            await self._queue.execute(sender, self._chance.choice(self._late))
        if fate < 0.4:
            raise StoreUnavailableError("lost on the way")
        reply: Reply = await self._queue.execute(sender, call)
        if fate > 0.7:
            raise StoreUnavailableError("applied, and nobody hears of it")
        return reply


class Played:
    """Leases that use tokens at random; what each client has used in the end."""

    def __init__(self, chance: random.Random) -> None:
        self.book = LeaseBook(lookahead=2, slots=100)
        self._chance = chance
        self._open: dict[str, Lease] = {}
        self._made: dict[str, Usage] = {}
        self._count = 0
        self.used: dict[str, float] = {}

    def step(self) -> None:
        chance, kind = self._chance, self._chance.random()
        if kind < 0.3 or not self._open:
            self._count += 1
            client = chance.choice(["alice", "bob"])
            price = chance.choice([1.0, 1.0, 3.0])  # of a LoRA adapter
            token = GrantToken(f"r{self._count}.1", client, "r", 0, weight=2.0, price=price)
            lease = self.book.open(token)
            self._open[lease.name] = lease
            self._made[lease.name] = Usage(chance.randint(1, 50))
        elif kind < 0.8:
            name = chance.choice(list(self._open))
            self._made[name] += (0, 0, chance.randint(0, 9))
            self.book.update([(name, 0, 1, *self._made[name])])
        else:
            self.end(chance.choice(list(self._open)))

    def end(self, name: str) -> None:
        lease, told = self._open.pop(name), self._made.pop(name)
        if self._chance.random() < 0.3 and told.output:
            told += (0, 0, -1)  # a stop string
        call = EngineCall(told.input, outputs={0: told.output}, complete=True)
        lease.calls.append(call)
        self.book.close(lease)
        self.book.confirm(self.book.settlements())
        client = lease.token.client
        service = lease.token.price * ServiceCost().of(told.input, told.output)
        self.used[client] = self.used.get(client, 0.0) + service

    def end_all(self) -> None:
        for name in list(self._open):
            self.end(name)


async def told_exactly(queue: Any, seed: int, rate: float) -> None:
    """A replica's leases, told to a queue over a bad line."""
    chance = random.Random(seed)
    call = Call()
    call.offer("http://replica-1", 0, 0, 1, 4096)
    call.heartbeat()
    await queue.execute(REPLICA, call)
    line, played = Flaky(queue, chance), Played(chance)
    neighbour = Neighbour("r", line, NeighbourSettings("other", rate, NO_LIMIT), 0.0)
    all_of_them = Neighbours(played.book, ServiceCost(), [neighbour], 0.0)
    for _ in range(150):
        played.step()
        if chance.random() < 0.3:
            all_of_them.look()
            with contextlib.suppress(StoreUnavailableError):
                await neighbour.tell()
    played.end_all()
    all_of_them.look()
    line.well = True
    await neighbour.tell()
    counters = {state.client: state.counter for state in await queue.clients()}
    expected = {client: used * rate / 2.0 for client, used in played.used.items()}
    assert counters == pytest.approx(expected)
    calls = line.calls
    all_of_them.look()
    await neighbour.tell()
    assert line.calls == calls  # nothing to say


@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(seed=st.integers(0, 10_000), rate=st.sampled_from([1.0, 0.25, 3.0]))
async def test_in_the_end_all_is_told_exactly_once(seed: int, rate: float) -> None:
    await told_exactly(MemoryQueue(QueueSettings(), Clock()), seed, rate)


async def test_the_same_on_a_server(server_url: str) -> None:
    redis = connect(server_url)
    for seed in range(5):
        await redis.flushall()
        await told_exactly(RedisQueue(redis, "other", QueueSettings()), seed, 0.25)
    await redis.aclose()


@pytest.fixture
async def neighbour() -> AsyncIterator[tuple[Neighbour, Neighbours, Played, Flaky, MemoryQueue]]:
    queue = MemoryQueue(QueueSettings(), Clock())
    played = Played(random.Random(1))
    line = Flaky(queue, random.Random(1))
    one = Neighbour("r", line, NeighbourSettings("other", 1.0, NO_LIMIT), 0.001)
    yield one, Neighbours(played.book, ServiceCost(), [one], 0.001), played, line, queue


async def test_draining_waits_until_all_is_told(neighbour: Any) -> None:
    _, neighbours, played, line, queue = neighbour
    running = asyncio.create_task(neighbours.run())
    for _ in range(50):
        played.step()
        await asyncio.sleep(0.001)
    played.end_all()
    line.well = True
    async with asyncio.timeout(10):
        await neighbours.drain()
    assert {state.client for state in await queue.clients()} == {"alice", "bob"}
    assert not running.done()
    running.cancel()


async def test_a_call_that_nobody_answers_is_given_up_while_its_number_is_known(
    neighbour: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, neighbours, played, line, queue = neighbour

    async def cut(sender: Sender, call: Call) -> Reply:
        raise StoreUnavailableError("cut")

    line.execute, execute = cut, line.execute
    played.step()
    played.end_all()
    neighbours.look()
    with pytest.raises(StoreUnavailableError):
        await one.tell()
    assert GIVE_UP_S * 1000 <= HOUR_MS / 2
    one._called_at -= GIVE_UP_S + 1
    line.execute = execute
    await one.tell()
    assert line.calls == 0
    assert await queue.clients() == []
