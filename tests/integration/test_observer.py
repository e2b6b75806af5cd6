"""Observers of a pool on real servers: one looks, all read, and another takes over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis.asyncio import Redis

from fairness.groups import Group
from fairness.observe import observer as observing
from fairness.observe.board import PAGE, Board
from fairness.observe.observation import Observation, ReplicaFacts
from fairness.observe.observer import Observer
from fairness.prediction import Prediction
from fairness.store.connection import SCHEMA, connect
from fairness.store.contract import Call, QueueSettings, Sender, Usage
from fairness.store.locate import LocatedQueue
from fairness.store.redis_store import RedisQueue
from fairness.store.settings import Credentials, StoreSettings
from tests.integration.servers import Server
from tests.integration.stores import POOL, REPLICA, ROUTER
from tests.integration.test_connections import SECRET, documented_acl

DEADLINE_S = 60
INTERVAL_S = 0.05
SETTINGS = QueueSettings(prediction=Prediction("pool_average"))
FACTS = ReplicaFacts(slots=4, lookahead=2, longest=100, kv_tokens=640, kv_use=0.5, preemptions=3)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


@dataclass
class Seer:
    """An observer, and all that it told."""

    observer: Observer
    seen: list[tuple[Observation, bool]] = field(default_factory=list)

    @property
    def made(self) -> int:
        return sum(mine for _, mine in self.seen)


class Stage:
    """A pool in a real store, with a replica and a router played by hand."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.redis: Redis = connect(url)
        self.queue = RedisQueue(self.redis, POOL, SETTINGS)
        self._versions = 0

    async def call(self, by: Sender, fill: Callable[[Call], None]) -> None:
        call = Call()
        fill(call)
        await self.queue.execute(by, call)

    async def offer(self, limit: int) -> None:
        self._versions += 1
        await self.call(
            REPLICA, lambda call: call.offer("tcp://r", limit, 0, self._versions, FACTS.longest)
        )

    async def submit(self, request: str, client: str, groups: tuple[Group, ...] = ()) -> None:
        await self.call(ROUTER, lambda call: call.submit(request, client, 1.0, 40, groups=groups))

    async def charge(self, lease: str, usage: Usage) -> None:
        await self.call(REPLICA, lambda call: call.charge(lease, usage))

    def board(self) -> Board:
        return Board.open(self.url, POOL, SETTINGS)

    @asynccontextmanager
    async def watched(self, name: str) -> AsyncIterator[Seer]:
        seer = Seer(
            Observer(
                name,
                POOL,
                self.board(),
                SETTINGS,
                on_seen=lambda seen, mine: seer.seen.append((seen, mine)),
                interval_s=INTERVAL_S,
            )
        )
        seer.observer.start()
        try:
            yield seer
            seer.observer.check()
        finally:
            await seer.observer.stop()


@pytest.fixture
async def stage(server_url: str) -> AsyncIterator[Stage]:
    stage = Stage(server_url)
    yield stage
    await stage.redis.aclose()


async def test_what_is_seen_is_what_the_queue_holds(stage: Stage) -> None:
    await stage.offer(2)
    board = stage.board()
    await board.tell_facts(REPLICA.name, FACTS)
    for number in range(3):
        await stage.submit(f"a{number}", "alice", (Group("acme/", 3.0),))
    await stage.submit("b0", "bob")
    async with stage.watched("router-1") as seer:
        await until(lambda: seer.made > 0)
        await stage.charge("a0.1", Usage(10, 4, 5))
        await stage.offer(5)
        await until(lambda: any(seen.rates.service_per_s for seen, _ in seer.seen))
        seen = next(seen for seen, _ in seer.seen if seen.rates.service_per_s)
        seconds = seen.interval_ms / 1000
        assert (seen.pool, seen.observer, seen.policy) == (POOL, "router-1", "vtc")
        assert seen.rates.input_per_s * seconds == pytest.approx(10)
        assert seen.rates.cached_per_s * seconds == pytest.approx(4)
        assert seen.rates.service_per_s * seconds == pytest.approx(6 + 2 * 5)
        await until(lambda: seer.seen[-1][0].credits == 1)
        seen = seer.observer.latest
        assert seen is not None and seer.observer.elected
        assert (seen.waiting, seen.running, seen.backlogged, seen.known) == (0, 4, 0, 2)
        (replica,) = seen.replicas
        assert (replica.url, replica.taking, replica.running) == ("tcp://r", True, 4)
        assert replica.facts == FACTS
        (group,) = seen.groups
        assert (group.group, group.weight, group.running) == ("acme", 3.0, 3)
        assert {row.client: row.group for row in seen.clients} == {"alice": "acme", "bob": ""}
        assert await board.latest() is not None
    await board.aclose()


async def test_how_far_predictions_are_off(stage: Stage) -> None:
    await stage.offer(3)
    lengths = (10, 30, 26)
    for number, length in enumerate(lengths):
        await stage.submit(f"a{number}", "alice")
        await stage.call(
            REPLICA,
            lambda call, n=number, made=length: call.settle(f"a{n}.1", Usage(5, 0, made)),
        )
    async with stage.watched("router-1") as seer:
        await until(lambda: seer.made > 0)
        seen = seer.seen[-1][0]
    assert seen.prediction == pytest.approx(22)  # predicted were 0, 10 and 20
    assert seen.prediction_error == pytest.approx((10 + 20 + 6) / 3)


async def test_the_gap_and_the_oldest_wait_of_those_in_line(stage: Stage) -> None:
    await stage.offer(1)
    for number in range(2):
        for client in ("alice", "bob"):
            await stage.submit(f"{client}{number}", client)
    await stage.charge("alice0.1", Usage(10, 0, 40))
    async with stage.watched("router-1") as seer:
        await until(lambda: seer.made > 0 and seer.seen[-1][0].oldest_wait_ms > 100)
        seen = seer.seen[-1][0]
        alice, bob = sorted(seen.clients, key=lambda row: row.client)
        assert seen.gap == pytest.approx(abs(alice.counter - bob.counter)) and seen.gap > 0
        assert (seen.waiting, seen.backlogged, alice.waiting + bob.waiting) == (3, 2, 3)
        assert seen.bound is None  # this replica has told nothing of itself


async def test_one_of_two_looks_and_both_know(stage: Stage) -> None:
    await stage.submit("a0", "alice")
    async with stage.watched("router-1") as first:
        await until(lambda: first.made > 0)
        async with stage.watched("router-2") as second:
            await until(lambda: len(second.seen) > 5)
            assert second.made == 0 and not second.observer.elected
            assert {seen.observer for seen, _ in second.seen} == {"router-1"}
            assert second.observer.latest is not None


async def test_another_takes_over_at_once_from_who_leaves(stage: Stage) -> None:
    async with stage.watched("router-2") as second:
        await until(lambda: second.made > 0)
        async with stage.watched("router-1") as first:
            await until(lambda: bool(first.seen))
            await second.observer.stop()
            await until(lambda: first.made > 0)
            latest = first.observer.latest
            assert latest is not None and latest.observer == "router-1"


async def test_another_takes_over_when_the_observer_dies(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(observing, "TTL_MS", 500)
    async with stage.watched("router-1") as first, stage.watched("router-2") as second:
        await until(lambda: first.made + second.made > 0)
        dead, heir = (first, second) if first.made else (second, first)
        assert dead.observer._task is not None
        dead.observer._task.cancel()  # without a word to the store
        await until(lambda: heir.made > 0)
        assert heir.observer.elected
        made = dead.made
        await until(lambda: heir.made > 3)
        assert dead.made == made
        await dead.observer.stop()
        holder = await stage.redis.get(f"{SCHEMA}:{{{POOL}}}:observer")
        assert holder == heir.seen[-1][0].observer  # who leaves takes nobody else's office


async def test_who_lost_the_office_publishes_nothing(stage: Stage) -> None:
    board = stage.board()
    async with stage.watched("router-1") as seer:
        await until(lambda: seer.made > 0)
        await stage.redis.set(f"{SCHEMA}:{{{POOL}}}:observer", "router-9", px=60_000)
        await until(lambda: not seer.observer.elected)
        at = (await board.latest() or seer.seen[-1][0]).at_ms
        for _ in range(5):
            await asyncio.sleep(INTERVAL_S)
            assert (await board.latest() or seer.seen[-1][0]).at_ms == at
    await board.aclose()


async def test_more_clients_than_a_page_holds(stage: Stage) -> None:
    count = 3 * PAGE + 1
    call = Call()
    for number in range(count):
        call.submit(f"r{number}", f"client-{number}", 1.0, 40)
    await stage.queue.execute(ROUTER, call)
    async with stage.watched("router-1") as seer:
        await until(lambda: seer.made > 0)
        seen = seer.seen[-1][0]
        assert (seen.known, seen.backlogged, seen.waiting) == (count, count, count)
        assert len(seen.clients) + seen.others.clients == count
        assert len(seen.clients) == 20 and len(seen.to_json()) < 10_000


async def test_history_is_told_since_a_time_and_stays_bounded(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fairness.observe.board.HISTORY", 5)
    monkeypatch.setattr("fairness.observe.history.COARSE_MS", 200)
    board = stage.board()
    async with stage.watched("router-1") as seer:
        await until(lambda: seer.made > 12)
        points = await board.history()
        assert [p.at_ms for p in points] == sorted(p.at_ms for p in points)
        assert len(points) == 5
        later = await board.history(points[2].at_ms)
        assert {p.at_ms for p in later} >= {p.at_ms for p in points[3:]}
        assert (await board.history(coarse=True))[0].interval_ms >= 200
    await board.aclose()


async def test_facts_of_replicas_that_are_gone_are_dropped(stage: Stage) -> None:
    board = stage.board()
    await board.tell_facts("replica-of-old", FACTS)
    async with stage.watched("router-1") as seer:
        await until(lambda: seer.made > 0)
        assert await stage.redis.hlen(f"{SCHEMA}:{{{POOL}}}:facts") == 0
    await board.aclose()


async def test_a_store_that_was_away_is_observed_again(stage: Stage) -> None:
    async with stage.watched("router-1") as seer:
        await until(lambda: seer.made > 0)
        await stage.redis.client_kill_filter(_type="normal")
        await stage.redis.flushall()
        made = seer.made
        await until(lambda: seer.made > made + 2)


async def test_what_makes_no_sense_does_not_end_the_observer(stage: Stage) -> None:
    async with stage.watched("router-1") as seer:
        await until(lambda: seer.made > 0)
        await stage.redis.hset(f"{SCHEMA}:{{{POOL}}}:clients", "odd", "not a record")
        await until(lambda: not seer.observer.elected)
        await stage.redis.hdel(f"{SCHEMA}:{{{POOL}}}:clients", "odd")
        made = seer.made
        await until(lambda: seer.made > made)


async def test_the_documented_acl_suffices(tmp_path: Path) -> None:
    with Server(tmp_path, password="admin") as server:
        server.ask(*documented_acl())
        source = StoreSettings(server.plain_url, Credentials("fairlane", SECRET))
        board = Board.open(source, POOL, SETTINGS)
        queue = await LocatedQueue.open(source, POOL, SETTINGS)
        call = Call()
        call.offer("tcp://r", 1, 0, 1, 100)
        await queue.execute(REPLICA, call)
        await board.tell_facts(REPLICA.name, FACTS)
        await board.tell_facts("gone", FACTS)
        observer = Observer("router-1", POOL, board, SETTINGS, interval_s=INTERVAL_S)
        observer.start()
        await until(lambda: observer.latest is not None)
        assert await board.latest() is not None and await board.history()
        await observer.stop()
        await queue.aclose()
        assert server.ask("ACL LOG") == []
