"""A replica's link, with a real store and an engine that is played by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from fairness.grant_token import GrantToken
from fairness.store.connection import SCHEMA, connect
from fairness.store.contract import (
    Call,
    Grant,
    QueueSettings,
    Reply,
    Sender,
)
from fairness.store.redis_store import RedisQueue
from replicas.counter_lag import Lag
from replicas.lease_book import EngineCall, LeaseBook
from replicas.queue_link import LinkSettings, QueueLink

pytestmark = pytest.mark.integration

ROUTER = Sender("router", "router-1")
COST = 2  # of an output token


class Engine:
    """What the scheduler would say, and what it was told."""

    def __init__(self) -> None:
        self.rows: dict[str, list[Any]] = {}
        self.charged: dict[str, float] = {}
        self.base: dict[str, float] = {}
        self.policies: list[str] = []
        self.forgotten: list[str] = []

    async def exchange(self, update: dict[str, Any]) -> dict[str, Any]:
        self.base |= update.get("base", {})
        self.forgotten += update.get("forget", [])
        if update.get("policy"):
            self.policies.append(update["policy"])
        rows, self.rows = list(self.rows.values()), {}
        return {
            "leases": rows,
            "charged": dict(self.charged),
            "waiting": 0,
            "running": 0,
            "kv_usage": 0.0,
            "fits": None,
            "preemptions": 0,
        }

    def runs(self, lease: str, client: str, prompt: int, output: int, live: int = 1) -> None:
        """One lease's totals, as after some steps."""
        self.rows[lease] = [lease, 0, live, prompt, 0, output]
        self.charged[client] = prompt + COST * output


class Setup:
    def __init__(self, url: str) -> None:
        self.redis = connect(url)
        self.queue = RedisQueue(self.redis, "tiny", QueueSettings())
        self.engine = Engine()
        self.book = LeaseBook(lookahead=1, slots=2)
        self.lags: list[Lag] = []
        self.link = QueueLink(
            Sender("replica", "replica-1"),
            "http://replica-1",
            self.book,
            exchange=self.engine.exchange,
            queue=self.queue,
            longest=4096,
            settings=LinkSettings(report_interval_s=0.001, charge_interval_s=0.01),
            on_lag=self.lags.append,
        )

    async def submit(self, name: str, client: str) -> Grant:
        call = Call()
        call.submit(name, client, 1, 40)
        grants = (await self.queue.execute(ROUTER, call)).grants
        while not grants:
            await asyncio.sleep(0.01)
            call = Call()
            call.reconcile(name)
            grants = (await self.queue.execute(ROUTER, call)).grants
        return grants[0]

    async def state(self, client: str) -> tuple[float, int, int]:
        """(counter, running, output tokens)"""
        for state in await self.queue.clients():
            if state.client == client:
                return state.counter, state.running, state.output_tokens
        return 0.0, 0, 0

    async def departed(self, client: str) -> None:
        async with asyncio.timeout(10):
            while client not in self.engine.forgotten:
                await asyncio.sleep(0.01)

    async def until(self, client: str, expected: tuple[float, int, int]) -> None:
        for _ in range(300):
            if (found := await self.state(client)) == expected:
                return
            await asyncio.sleep(0.01)
        assert found == expected


@pytest_asyncio.fixture
async def setup(server_url: str) -> AsyncIterator[Setup]:
    setup = Setup(server_url)
    task = asyncio.create_task(setup.link.run())
    yield setup
    task.cancel()
    await setup.redis.aclose()


def token(grant: Grant, client: str) -> GrantToken:
    return GrantToken(grant.lease, client, grant.replica, expires=0, counter=grant.counter)


async def test_a_lease_is_charged_while_it_runs_and_settled_once(setup: Setup) -> None:
    grant = await setup.submit("r1", "alice")
    lease = setup.link.open(token(grant, "alice"))
    setup.engine.runs(grant.lease, "alice", prompt=8, output=3)
    await setup.until("alice", (8 + 2 * 3, 1, 3))
    setup.engine.runs(grant.lease, "alice", prompt=8, output=9)
    await setup.until("alice", (8 + 2 * 9, 1, 9))
    lease.calls.append(EngineCall(input=8, outputs={0: 10}, complete=True))
    setup.link.close(lease)
    await setup.until("alice", (8 + 2 * 10, 0, 10))


async def test_the_lag_of_the_counters_is_measured(setup: Setup) -> None:
    grant = await setup.submit("r1", "alice")
    lease = setup.link.open(token(grant, "alice"))
    made = 0
    async with asyncio.timeout(30):
        while not any(lag.service for lag in setup.lags):  # told every second
            made += 1
            setup.engine.runs(grant.lease, "alice", prompt=8, output=made)
            await asyncio.sleep(0.002)
    worst = max(setup.lags, key=lambda lag: lag.service)
    assert worst.seconds > 0
    assert 0 < worst.service <= COST * made
    lease.calls.append(EngineCall(input=8, outputs={0: made}, complete=True))
    setup.link.close(lease)
    async with asyncio.timeout(30):
        while setup.lags[-1] != Lag():  # no one is charged, nothing lags
            await asyncio.sleep(0.01)


async def test_a_counter_that_comes_as_its_client_departs_does_no_harm(setup: Setup) -> None:
    link, exchange = setup.link, setup.engine.exchange

    async def departing(update: dict[str, Any]) -> dict[str, Any]:
        if "alice" in update.get("forget", []):  # the store's reply overtakes the engine's
            link._heed(Reply(counters={"alice": 9.0}), {"alice": 4.0}, [])
        return await exchange(update)

    link._exchange = departing
    grant = await setup.submit("r1", "alice")
    lease = link.open(token(grant, "alice"))
    setup.engine.runs(grant.lease, "alice", prompt=8, output=1)
    await setup.until("alice", (8 + 2, 1, 1))
    lease.calls.append(EngineCall(input=8, outputs={0: 1}, complete=True))
    link.close(lease)
    await setup.until("alice", (8 + 2, 0, 1))
    await setup.departed("alice")
    grant = await setup.submit("r2", "bob")  # the link lives
    link.open(token(grant, "bob"))
    setup.engine.runs(grant.lease, "bob", prompt=8, output=3)
    await setup.until("bob", (10 + 8 + 2 * 3, 1, 3))


async def test_the_engine_learns_the_global_counter_and_nothing_counts_twice(setup: Setup) -> None:
    grant = await setup.submit("r1", "alice")
    setup.link.open(token(grant, "alice"))
    # Another replica has charged alice 500 meanwhile.
    call = Call()
    call.resync_client("alice", 500 + (await setup.state("alice"))[0])
    await setup.queue.execute(Sender("replica", "replica-2"), call)
    for output in (3, 9):
        setup.engine.runs(grant.lease, "alice", prompt=8, output=output)
        async with asyncio.timeout(5):
            while setup.engine.base.get("alice") != 500:
                await asyncio.sleep(0.01)


async def test_a_cut_off_lease_pays_what_the_engine_made(setup: Setup) -> None:
    grant = await setup.submit("r1", "alice")
    lease = setup.link.open(token(grant, "alice"))
    lease.calls.append(EngineCall(input=8, outputs={0: 2}))
    setup.link.close(lease)
    await asyncio.sleep(0.05)
    assert (await setup.state("alice"))[1] == 1  # the engine has not let go yet
    setup.engine.runs(grant.lease, "alice", prompt=8, output=4, live=0)
    await setup.until("alice", (8 + 2 * 4, 0, 4))


async def test_the_window_holds_what_does_not_fit(setup: Setup) -> None:
    leases = []
    for n in range(3):  # two slots, one ahead
        grant = await setup.submit(f"r{n}", "alice")
        leases.append(setup.link.open(token(grant, "alice")))
        if n < 2:
            setup.engine.runs(grant.lease, "alice", prompt=8, output=1)
    waiting = asyncio.create_task(setup.submit("r3", "alice"))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    leases[0].calls.append(EngineCall(input=8, outputs={0: 1}, complete=True))
    setup.link.close(leases[0])
    setup.engine.runs(leases[2].name, "alice", prompt=8, output=1)  # in the slot that is free now
    async with asyncio.timeout(5):
        assert (await waiting).request == "r3"


async def test_a_long_engine_step_is_not_taken_for_death(setup: Setup) -> None:
    grant = await setup.submit("r1", "alice")
    setup.link.open(token(grant, "alice"))
    stuck = asyncio.Event()
    exchange = setup.engine.exchange

    async def slow(update: dict[str, Any]) -> dict[str, Any]:
        await stuck.wait()
        return await exchange(update)

    setup.link._exchange = slow
    prefix = f"{SCHEMA}:{{tiny}}:replicas"
    await asyncio.sleep(0.5)
    before = await setup.redis.zscore(prefix, "replica-1")
    await asyncio.sleep(2.5)
    assert await setup.redis.zscore(prefix, "replica-1") > before + 1500
    stuck.set()


async def test_a_policy_reaches_the_engine(setup: Setup) -> None:
    call = Call()
    call.policy("fcfs", "test")
    await setup.queue.execute(ROUTER, call)
    async with asyncio.timeout(5):
        while setup.engine.policies[-1:] != ["fcfs"]:
            await asyncio.sleep(0.01)


async def test_a_departed_client_is_forgotten_when_the_engine_has_told_all(setup: Setup) -> None:
    grant = await setup.submit("r1", "alice")
    lease = setup.link.open(token(grant, "alice"))
    setup.engine.runs(grant.lease, "alice", prompt=8, output=1, live=0)
    setup.link.close(lease)
    async with asyncio.timeout(5):
        while "alice" not in setup.engine.forgotten:
            await asyncio.sleep(0.01)
    setup.engine.charged.clear()  # now it is


async def test_draining_ends_when_all_is_settled(setup: Setup) -> None:
    grant = await setup.submit("r1", "alice")
    lease = setup.link.open(token(grant, "alice"))
    draining = asyncio.create_task(setup.link.drain())
    await asyncio.sleep(0.1)
    assert not draining.done()
    setup.link.close(lease)
    async with asyncio.timeout(5):
        await draining
    assert await setup.state("alice") == (0, 0, 0)
    call = Call()
    call.submit("r2", "alice", 1, 40)
    assert (await setup.queue.execute(ROUTER, call)).grants == ()
