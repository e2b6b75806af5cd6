"""Shadow mode on every store: first come, first served to the letter, and a report of what VTC
would have done."""

from __future__ import annotations

import pytest

from fairness.store.contract import Usage
from fairness.store.shadow import Shadow
from tests.integration.stores import Pool

pytestmark = pytest.mark.integration

USED = Usage(10, 0, 20)  # as much as its prompt is estimated at, and 40 more


async def serve(pool: Pool, count: int) -> list[str]:
    """So many requests, one at a time."""
    order = []
    for turn in range(1, count + 1):
        await pool.offer(limit=turn)
        (grant,) = await pool.reconcile_all()
        order.append(grant.request)
        await pool.report("settle", grant.lease, USED)
    return order


async def test_a_modest_client_behind_a_flood_is_seen_to_be_passed_over(pool: Pool) -> None:
    await pool.set_policy("shadow", "test")
    sent = []
    for n in range(100):
        sent.append(f"flood-{n:03}")
        await pool.submit(sent[-1], "flood")
        if n % 20 == 10:
            sent.append(f"modest-{n:03}")
            await pool.submit(sent[-1], "modest")
    assert await serve(pool, 50) == sent[:50]
    report = await pool.queue.shadow()
    flood, modest = report.clients["flood"], report.clients["modest"]
    assert report.since == pool.clock()
    assert (flood.grants, modest.grants) == (48, 2)
    # From the second grant on the modest one has had less: all 47 of the flood's pass it over.
    assert (modest.went_ahead, modest.passed_over) == (0, 47)
    assert (flood.went_ahead, flood.passed_over) == (47, 0)
    assert flood.service_ahead == modest.service_passed > 0
    assert modest.gain == -flood.gain


async def test_the_counters_go_on_and_the_switch_to_vtc_heeds_them(pool: Pool) -> None:
    await pool.set_policy("shadow", "test")
    for n in range(20):
        await pool.submit(f"flood-{n:02}", "flood")
    await pool.submit("modest-00", "modest")
    assert await serve(pool, 3) == ["flood-00", "flood-01", "flood-02"]
    await pool.set_policy("vtc", "now")
    await pool.offer(limit=4)
    assert [grant.request for grant in await pool.reconcile_all()] == ["modest-00"]
    assert sum(shadow.grants for shadow in (await pool.queue.shadow()).clients.values()) == 3


async def test_the_notes_begin_anew_when_it_is_switched_on_again(pool: Pool) -> None:
    assert (await pool.queue.shadow()).since == 0
    await pool.set_policy("shadow", "one")
    await pool.submit("r1", "alice")
    await pool.offer(limit=1)
    await pool.set_policy("shadow", "a second word for the same")
    assert (await pool.queue.shadow()).clients == {"alice": Shadow(grants=1)}
    await pool.set_policy("fcfs", "two")
    pool.clock.pass_ms(5)
    await pool.set_policy("shadow", "three")
    report = await pool.queue.shadow()
    assert (report.since, report.clients) == (pool.clock(), {})
