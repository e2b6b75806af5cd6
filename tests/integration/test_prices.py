"""Requests that cost a multiple (of a LoRA adapter with a price of its own): service is counted so
many times, tokens as they are. In memory and on real servers."""

from __future__ import annotations

from collections import Counter

import pytest

from fairness.groups import Group
from fairness.prediction import Prediction
from fairness.store.contract import Call, Grant, QueueSettings, Usage
from tests.integration.stores import OTHER_REPLICA, REPLICA, ROUTER, Pool, opened

pytestmark = pytest.mark.integration

PRICE = 2.5
ACME = Group("acme/")


async def ask(
    pool: Pool, request: str, client: str, price: float = PRICE, groups: tuple[Group, ...] = ()
) -> tuple[Grant, ...]:
    call = Call()
    call.submit(request, client, 1, 40, groups=groups)
    call.price(request, price)
    return (await pool.call(ROUTER, call)).grants


async def test_the_counters_grow_by_the_price_and_tokens_stay_as_they_are(pool: Pool) -> None:
    await pool.offer(limit=1)
    (grant,) = await ask(pool, "r1", "alice", groups=(ACME,))
    assert grant.counter == PRICE * 10  # the estimate: 40 bytes at a quarter of a token
    assert grant.groups[0].counter == PRICE * 10
    reply = await pool.report("charge", grant.lease, Usage(12, 2, 3))
    assert reply.counters == {"alice": PRICE * (10 + 6), "acme/": PRICE * (10 + 6)}
    await pool.report("settle", grant.lease, Usage(12, 2, 5))
    alice = await pool.client("alice")
    assert (alice.input_tokens, alice.cached_tokens, alice.output_tokens) == (12, 2, 5)
    assert alice.counter == alice.service == PRICE * 20
    (used,) = (await pool.usage()).values()
    assert (used.requests, used.input, used.output, used.service) == (1, 12, 5, PRICE * 20)
    assert await pool.leftovers() == []


async def test_twice_the_price_is_half_of_the_tokens(pool: Pool) -> None:
    tokens: Counter[str] = Counter()
    for n in range(60):
        await ask(pool, f"a{n}", "alice", 2.0)
        pool.submitted.append(f"a{n}")
        await pool.submit(f"b{n}", "bob")
    await pool.offer(limit=1)
    for n in range(45):
        (grant,) = await pool.reconcile_all()
        tokens["alice" if grant.request.startswith("a") else "bob"] += 15
        await pool.report("settle", grant.lease, Usage(10, 0, 5))
        await pool.offer(limit=n + 2)
    assert tokens["bob"] == pytest.approx(2 * tokens["alice"], abs=30)


async def test_what_is_taken_back_is_refunded_whole(pool: Pool) -> None:
    await pool.offer(limit=1)
    (grant,) = await ask(pool, "r1", "alice")
    await pool.report("charge", grant.lease, Usage(10, 0, 4))
    await pool.route("requeue", grant.lease)
    alice = await pool.client("alice")
    assert (alice.counter, alice.service, alice.input_tokens) == (0, 0, 0)
    await pool.offer(limit=1, by=OTHER_REPLICA)
    await pool.report("settle", "r1.2", Usage(10, 0, 4), by=OTHER_REPLICA)
    assert (await pool.client("alice")).service == PRICE * 18


async def test_a_grant_taken_back_but_used_after_all_is_paid_at_its_price(pool: Pool) -> None:
    await pool.beat(REPLICA)
    await pool.offer(limit=1)
    await ask(pool, "r1", "alice of a long name")
    await pool.route("cancel", "r1")
    await pool.report("settle", "r1.1", Usage(10, 0, 5))
    assert (await pool.client("alice of a long name")).service == PRICE * 20


async def test_a_lease_told_again_after_a_loss_keeps_its_price(pool: Pool) -> None:
    call = Call()
    call.resync_lease("r1.1", "alice", 1, Usage(10, 0, 5))
    call.price("r1", PRICE)
    call.resync_client("alice", PRICE * 20)
    for _ in range(2):
        await pool.call(REPLICA, call)
    await pool.report("settle", "r1.1", Usage(10, 0, 7))
    assert (await pool.client("alice")).counter == PRICE * 24


async def test_a_price_comes_through_a_submission_told_twice(pool: Pool) -> None:
    await ask(pool, "r1", "alice")
    assert await ask(pool, "r1", "alice") == ()
    await pool.offer(limit=1)
    assert (await pool.client("alice")).counter == PRICE * 10


async def test_a_prediction_is_charged_at_the_price_and_learned_in_tokens(
    store: str | None,
) -> None:
    async with opened(store, QueueSettings(prediction=Prediction("pool_average"))) as pool:
        await pool.offer(limit=2)
        await ask(pool, "r1", "alice")
        await pool.report("settle", "r1.1", Usage(10, 0, 8))
        (grant,) = await ask(pool, "r2", "alice")
        assert grant.counter == PRICE * (26 + 10 + 2 * 8)
