"""What every store says clients have used by the day."""

from __future__ import annotations

import pytest

from fairness.store.contract import Call, QueueSettings, Usage
from fairness.store.usage import DAY_MS, DailyUsage, Used
from tests.integration.stores import OTHER_REPLICA, OTHER_ROUTER, REPLICA, Pool, opened

pytestmark = pytest.mark.integration


async def test_a_day_has_the_tokens_service_and_requests_of_its_end(pool: Pool) -> None:
    await pool.offer(limit=2)
    await pool.submit("r1", "alice")
    await pool.report("charge", "r1.1", Usage(10, 4, 1))
    pool.clock.pass_ms(DAY_MS)
    await pool.report("settle", "r1.1", Usage(10, 4, 6))
    await pool.submit("r2", "alice")
    for _ in range(2):
        await pool.report("settle", "r2.1", Usage(7, 0, 3))
    assert await pool.usage() == {
        0: Used(0, 10, 4, 1, 6 + 2),
        1: Used(2, 7, 0, 5 + 3, 10 + 7 + 6),
    }
    alice = await pool.client("alice")
    assert (alice.input_tokens, alice.cached_tokens, alice.output_tokens) == (17, 4, 9)


async def test_days_without_use_are_not_listed(pool: Pool) -> None:
    await pool.submit("r1", "alice")
    assert await pool.usage() == {}
    pool.clock.pass_ms(DAY_MS)
    await pool.offer(limit=1)
    await pool.beat()
    await pool.report("settle", "r1.1", Usage())
    pool.clock.pass_ms(3 * DAY_MS)
    await pool.submit("r2", "alice")
    await pool.offer(limit=2)
    await pool.report("settle", "r2.1", Usage(1, 0, 1))
    assert set(await pool.usage()) <= {1, 4}
    assert (await pool.usage())[4] == Used(1, 1, 0, 1, 3)


async def test_a_wait_counts_until_each_grant(pool: Pool) -> None:
    await pool.submit("r1", "alice")
    await pool.submit("gone", "alice", priority=1)
    pool.clock.pass_ms(700)
    await pool.offer(limit=1)
    assert await pool.usage() == {0: Used(waited=700)}
    await pool.report("charge", "r1.1", Usage(10, 0, 0))
    pool.clock.pass_ms(500)
    await pool.route("cancel", "gone")
    await pool.route("requeue", "r1.1")
    pool.clock.pass_ms(20)
    await pool.beat()
    await pool.offer(limit=1, by=OTHER_REPLICA)
    await pool.report("settle", "r1.2", Usage(10, 0, 5), by=OTHER_REPLICA)
    assert await pool.usage() == {0: Used(1, 10, 0, 5, 20, 720)}


async def test_what_is_given_back_is_taken_off_the_day_of_that(pool: Pool) -> None:
    await pool.offer(limit=1)
    await pool.submit("r1", "alice")
    await pool.report("charge", "r1.1", Usage(10, 0, 5))
    pool.clock.pass_ms(DAY_MS)
    await pool.route("requeue", "r1.1")
    assert await pool.usage() == {0: Used(0, 10, 0, 5, 20), 1: Used(0, -10, 0, -5, -20)}


async def test_a_refused_request_is_none(pool: Pool) -> None:
    await pool.offer(limit=1)
    await pool.submit("r1", "alice")
    await pool.report("settle", "r1.1", Usage())
    assert await pool.usage() == {}


async def test_a_dead_replica_s_leases_are_requests_with_what_was_charged(pool: Pool) -> None:
    await pool.offer(limit=2)
    await pool.submit("r1", "alice")
    await pool.submit("r2", "alice")
    await pool.report("charge", "r1.1", Usage(10, 0, 5))
    for _ in range(5):
        await pool.beat(by=OTHER_ROUTER)
        pool.clock.pass_ms(4_000)
    assert (await pool.state("alice"))[2] == 0
    assert await pool.usage() == {0: Used(1, 10, 0, 5, 20)}


async def test_a_grant_taken_back_and_used_after_all_is_a_request(pool: Pool) -> None:
    await pool.offer(limit=1)
    await pool.submit("r1", "alice")
    await pool.route("cancel", "r1")
    pool.clock.pass_ms(DAY_MS)
    for _ in range(2):
        await pool.report("settle", "r1.1", Usage(10, 0, 5))
    assert await pool.usage() == {1: Used(1, 10, 0, 5, 20)}


async def test_what_is_resynced_is_counted_but_once(pool: Pool) -> None:
    await pool.offer(limit=1)
    await pool.submit("r1", "alice")
    await pool.report("charge", "r1.1", Usage(10, 0, 5))
    call = Call()
    call.resync_lease("r1.1", "alice", 1, Usage(10, 0, 5))
    await pool.call(REPLICA, call)
    await pool.report("settle", "r1.1", Usage(10, 0, 6))
    assert await pool.usage() == {0: Used(1, 10, 0, 6, 22)}


async def test_days_are_kept_for_as_long_as_configured(store: str | None) -> None:
    async with opened(store, QueueSettings(usage_retention_days=3)) as pool:
        for day in range(6):
            await use(pool, f"r{day}", "alice")
            if day == 0:
                await use(pool, "bob", "bob")
            await pool.beat()
            assert set(await pool.usage()) == set(range(max(0, day - 2), day + 1))
            assert set(await pool.usage("bob")) == ({0} if day < 3 else set())
            pool.clock.pass_ms(DAY_MS)
        await use(pool, "bob-again", "bob")
        assert set(await pool.usage("bob")) == {6}
        await pool.beat()
        assert await pool.kept_days() <= {4, 5, 6}


async def test_a_clock_that_falls_back_begins_no_day_anew(pool: Pool) -> None:
    pool.clock.pass_ms(DAY_MS)
    await use(pool, "r1", "alice")
    pool.clock.pass_ms(-DAY_MS)
    await use(pool, "r2", "alice")
    await use(pool, "r3", "bob")
    pool.clock.pass_ms(DAY_MS)
    await use(pool, "r4", "alice")
    pool.clock.pass_ms(DAY_MS)
    await use(pool, "r5", "alice")
    usage = await pool.usage()
    assert {day: used.requests for day, used in usage.items()} == {1: 3, 2: 1}
    assert all(used.waited >= 0 for used in usage.values())
    assert set(await pool.usage("bob")) == {0}


async def test_usage_of_some_clients_only(pool: Pool) -> None:
    for client in ("alice", "bob", "carol"):
        await use(pool, client, client)
    pool.clock.pass_ms(DAY_MS)
    await use(pool, "alice-again", "alice")
    usage = await DailyUsage.open(pool.queue, ["alice", "bob", "nobody"])
    assert [set(await usage.on(day)) for day in range(3)] == [{"alice", "bob"}, {"alice"}, set()]


async def test_a_day_begun_while_it_is_read_is_seen_once(pool: Pool) -> None:
    await use(pool, "r1", "alice")
    usage = await DailyUsage.open(pool.queue)
    pool.clock.pass_ms(DAY_MS)
    await use(pool, "r2", "alice")
    assert (await usage.on(0))["alice"].requests == 1


async def use(pool: Pool, request: str, client: str) -> None:
    """One request from its submission to its end."""
    await pool.offer(limit=100)
    (grant,) = await pool.submit(request, client)
    await pool.report("settle", grant.lease, Usage(1, 0, 1))
