"""What the store may do to routers and replicas: go away, come back empty, forget its last second.

Each time: every request ends, nothing is left in the store or on a replica's books, and what the
store says was used is what clients were told, less at most what the store itself has forgotten.
"""

from __future__ import annotations

import asyncio
import time

import pytest
import redis as sync_redis

from fairness.store.contract import Call, Sender
from router.errors import ApiError
from tests.integration.world import World, world

pytestmark = pytest.mark.integration


def output(world: World) -> int:
    return sum(usage.output for usage in world.told.values())


async def charged_output(world: World) -> int:
    return sum(usage.output for usage in (await world.charged()).values())


async def test_in_peace_every_token_is_accounted_for(valkey_url: str) -> None:
    async with world(valkey_url) as peace:
        await asyncio.gather(peace.flood("alice", 1.5), peace.flood("bob", 1.5, streams=3))
        await peace.settled()
        assert peace.errors == []
        assert await peace.charged() == peace.told


@pytest.mark.parametrize("stopped", [False, True], ids=["cut off", "stopped"])
async def test_without_the_store_requests_go_on_and_are_charged_on_return(
    valkey_url: str, stopped: bool
) -> None:
    async with world(valkey_url) as outage:
        load = asyncio.gather(outage.flood("alice", 60, streams=9), outage.flood("bob", 60))
        await asyncio.sleep(1)
        outage.network.stopped, outage.network.cut = stopped, not stopped
        await asyncio.sleep(2)
        assert all(turns.degraded for turns in outage.turns)
        before = {name: usage.output for name, usage in outage.told.items()}
        served = dict.fromkeys(before, 0)
        async with asyncio.timeout(40):
            while sum(served.values()) < 50 * 20:  # fifty requests, however long they take
                await asyncio.sleep(0.05)
                served = {name: outage.told[name].output - made for name, made in before.items()}
        outage.network.cut = False
        await outage.network.resume()
        await asyncio.sleep(1)
        outage.enough = True
        await load
        await outage.settled()
        assert outage.errors == []
        assert min(served.values()) > 0.6 * max(served.values()) > 0  # and fairly
        assert not any(turns.degraded for turns in outage.turns)
        assert await outage.charged() == outage.told


async def test_fail_closed_refuses_while_the_store_is_away(valkey_url: str) -> None:
    async with world(valkey_url, fail_closed=True) as outage:
        load = asyncio.create_task(outage.flood("alice", 2.5, streams=12, output=100))
        await asyncio.sleep(0.5)
        outage.network.cut = True
        async with asyncio.timeout(3):
            while not outage.errors:
                await asyncio.sleep(0.02)
        outage.network.cut = False
        await load
        await outage.settled()
        assert {(type(e), getattr(e, "status", 0)) for e in outage.errors} == {(ApiError, 503)}
        assert all(getattr(e, "retry_after_s", 0) for e in outage.errors)
        assert await outage.charged() == outage.told


async def test_a_store_that_comes_back_empty_is_told_everything(valkey_url: str) -> None:
    async with world(valkey_url) as loss:
        policy = Call()
        policy.policy("fcfs", "an admin")
        await loss.queue.execute(Sender("router", "router-0"), policy)
        load = asyncio.gather(loss.flood("alice", 3, streams=9), loss.flood("bob", 3))
        await asyncio.sleep(2.4)  # most of the load comes before, so that counters show the loss
        counters = {state.client: state.counter for state in await loss.queue.clients()}
        before = output(loss)
        await loss.redis.flushall()
        await load
        await loss.settled()
        after = {state.client: state.counter for state in await loss.queue.clients()}
        assert loss.errors == []
        # (Of who had nothing here at that moment a second may be missing.)
        assert all(after[client] >= counter / 2 for client, counter in counters.items()), (
            counters,
            after,
            loss.told,
        )
        assert all(turns.pool.policy == "fcfs" for turns in loss.turns)
        since = output(loss) - before
        assert since - 200 <= await charged_output(loss) <= since + 200


@pytest.mark.parametrize("settle_between", [False, True])
async def test_a_store_that_forgets_its_last_second_charges_nothing_twice(
    valkey_url: str, settle_between: bool
) -> None:
    """As after a failover, or a crash with appendfsync everysec."""
    async with world(valkey_url) as loss:
        load = asyncio.gather(
            loss.flood("alice", 4, streams=9, output=10 if settle_between else 150),
            loss.flood("bob", 4),
        )
        await asyncio.sleep(1)
        with sync_redis.Redis.from_url(valkey_url) as raw:
            dumps = {key: raw.dump(key) for key in raw.keys("*")}
            made_then = output(loss)
            await asyncio.sleep(1)
            lost = output(loss) - made_then
            raw.flushall()
            for key, dump in dumps.items():
                raw.restore(key, 0, dump)
        await load
        await loss.settled()
        assert loss.errors == []
        told, charged = output(loss), await charged_output(loss)
        running = 2 * 3 * 150  # what runs at the moment of the loss may be counted on either side
        assert told - lost - running <= charged <= told


async def test_a_replica_that_dies_while_the_store_is_away(valkey_url: str) -> None:
    async with world(valkey_url) as outage:
        load = asyncio.gather(outage.flood("alice", 5), outage.flood("bob", 5))
        await asyncio.sleep(0.5)
        outage.network.cut = True
        await asyncio.sleep(1.7)
        dead = outage.replicas["replica-0"]
        dead.killed = True
        for run in list(dead.runs.values()):
            run.done.set()
        await asyncio.sleep(1)
        before = output(outage)
        await asyncio.sleep(0.7)
        assert output(outage) > before
        outage.network.cut = False
        await load
        assert outage.errors == []


async def test_a_router_to_whom_the_store_is_back_later(valkey_url: str) -> None:
    """What stood in its line all the while is granted there too, and was served long ago."""
    async with world(valkey_url) as outage:
        load = asyncio.gather(outage.flood("alice", 60, streams=10), outage.flood("bob", 60))
        await asyncio.sleep(0.5)
        outage.network.cut = True
        await asyncio.sleep(2)
        assert all(turns.degraded for turns in outage.turns)
        outage.network.cut_off = {"router-1"}
        outage.network.cut = False
        await asyncio.sleep(1.5)
        assert [turns.degraded for turns in outage.turns] == [False, True]
        outage.network.cut_off.clear()
        outage.enough = True
        await load
        await outage.settled()
        assert outage.errors == []
        assert await outage.charged() == outage.told


async def test_a_router_that_leaves_says_so(valkey_url: str) -> None:
    async with world(valkey_url, replicas=0) as pair:
        turn = asyncio.create_task(pair.request(1, "alice", 5))
        async with asyncio.timeout(3):
            while not any(state.waiting for state in await pair.queue.clients()):
                await asyncio.sleep(0.02)
        began = time.monotonic()
        turn.cancel()
        await pair.turns[1].stop()
        await pair.settled()
        assert time.monotonic() - began < 4  # not the time after which it would be taken for dead
