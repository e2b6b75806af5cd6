"""Limits of levels, in every store: what is let in, what is refused, and that all that was reserved
comes back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable

import pytest

from fairness.groups import Group
from fairness.limits import MINUTE_MS, Limits, Rate, Refusal, Terms
from fairness.store.connection import connect
from fairness.store.contract import Call, QueueSettings, Reply, Sender, Usage
from fairness.store.redis_store import RedisQueue
from fairness.store.session import Session
from tests.integration.stores import (
    OTHER_ROUTER,
    POOL,
    REPLICA,
    ROUTER,
    Pool,
    stored_meters,
)

pytestmark = pytest.mark.integration

ACME, ML = Group("acme/"), Group("acme/ml/")
TEAM = (ACME, ML)
ALL = Limits(1000, 100_000, 1000, 1000, 100_000)


async def ask(
    pool: Pool,
    request: str,
    *limits: Limits,
    groups: Iterable[Group] = (),
    by: Sender = ROUTER,
    **terms: object,
) -> Reply:
    """Submit 40 bytes of alice: 10 tokens at the first guess."""
    pool.submitted.append(request)
    call = Call()
    on = Terms(limits, **terms)  # type: ignore[arg-type]
    call.submit(request, "alice", 1, 40, groups=groups, terms=on)
    return await pool.call(by, call)


async def test_requests_a_minute_are_refilled_continuously(pool: Pool) -> None:
    limit = Limits(requests_per_minute=3)
    left = [(await ask(pool, f"r{n}", limit)).rates[f"r{n}"].requests for n in range(3)]
    assert left == [Rate(3, 2, 20_000), Rate(3, 1, 40_000), Rate(3, 0, 60_000)]
    reply = await ask(pool, "r3", limit)
    assert reply.refused == {"r3": Refusal("alice", "requests_per_minute", 3, 0, 20_000)}
    assert reply.rates["r3"].requests == Rate(3, 0, 60_000)
    assert (await pool.state("alice"))[1] == 3
    pool.clock.pass_ms(19_999)
    assert (await ask(pool, "r4", limit)).refused["r4"].retry_after_ms == 1
    pool.clock.pass_ms(1)
    assert not (await ask(pool, "r5", limit)).refused


async def test_tokens_are_estimated_and_settled_with_the_truth(pool: Pool) -> None:
    limit = Limits(tokens_per_minute=100)
    await pool.offer(limit=10)
    for n, left in enumerate((90, 80)):
        reply = await ask(pool, f"r{n}", limit)
        assert reply.rates[f"r{n}"].tokens == Rate(100, left, (n + 1) * 6_000)
    await pool.report("settle", "r0.1", Usage(10, 4, 25))  # the cached ones count, too
    await pool.report("settle", "r0.1", Usage(10, 4, 25))
    meter = (await pool.meters())["alice"]
    assert (meter.tokens, meter.in_flight) == (45, 1)
    # Now the pool's average output is 25, and its tokens a byte are the same.
    reply = await ask(pool, "r2", limit)
    assert reply.rates["r2"].tokens == Rate(100, 20, 48_000)
    reply = await ask(pool, "r3", limit)
    assert reply.refused["r3"] == Refusal("alice", "tokens_per_minute", 100, 20, 9_000)
    assert not (await ask(pool, "r4", limit, max_output=3)).refused
    # More than was reserved is a debt.
    await pool.report("settle", "r2.1", Usage(10, 0, 190))
    assert (await pool.meters())["alice"].tokens == 45 + 200 + 13
    reply = await ask(pool, "r5", limit, max_output=0)
    assert reply.refused["r5"].retry_after_ms == 168 * 600


async def test_a_request_larger_than_the_limit_is_let_in_when_nothing_is_spent(pool: Pool) -> None:
    limit = Limits(tokens_per_minute=4)
    assert (await ask(pool, "r0", limit)).rates["r0"].tokens == Rate(4, 0, 150_000)
    assert "r1" in (await ask(pool, "r1", limit)).refused
    await pool.route("cancel", "r0")
    assert not (await ask(pool, "r2", limit)).refused


async def test_who_is_in_flight_counts_until_it_ends_whoever_says_so(pool: Pool) -> None:
    limit = Limits(concurrency=2)
    await pool.offer(limit=10)
    for n in range(2):
        assert not (await ask(pool, f"r{n}", limit)).refused
    refused = (await ask(pool, "r2", limit)).refused["r2"]
    assert refused == Refusal("alice", "concurrency", 2, 0, 1_000)
    for _ in range(2):  # its router knows first
        await pool.route("ended", "r0")
    assert not (await ask(pool, "r3", limit)).refused
    await pool.report("settle", "r0.1", Usage(10, 0, 5))
    await pool.route("ended", "r0")
    assert "r4" in (await ask(pool, "r4", limit)).refused
    await pool.report("settle", "r1.1", Usage())
    assert not (await ask(pool, "r5", limit)).refused


async def test_what_waits_is_limited_in_number_and_bytes(pool: Pool) -> None:
    limit = Limits(queued_requests=2)
    for n in range(2):
        await ask(pool, f"r{n}", limit)
    assert (await ask(pool, "r2", limit)).refused["r2"].name == "queued_requests"
    limit = Limits(queued_bytes=119)
    assert (await ask(pool, "r3", limit)).refused["r3"] == Refusal(
        "alice", "queued_bytes", 119, 39, 1_000
    )
    await pool.offer(limit=1)  # one waits no more
    assert not (await ask(pool, "r4", limit)).refused
    await pool.route("requeue", "r0.1")  # it waits again
    meter = (await pool.meters())["alice"]
    assert (meter.queued, meter.bytes, meter.in_flight) == (3, 120, 3)


async def test_who_is_granted_in_the_same_call_is_not_queued(pool: Pool) -> None:
    """A router's calls gather many requests: those for which there is room do not wait."""
    await pool.offer(limit=5)
    call = Call()
    for n in range(9):
        call.submit(f"r{n}", "alice", 1, 40, terms=Terms((Limits(queued_requests=2),)))
    reply = await pool.call(ROUTER, call)
    assert [grant.request for grant in reply.grants] == [f"r{n}" for n in range(5)]
    assert list(reply.refused) == ["r7", "r8"]


async def test_the_level_that_is_full_is_named_and_nothing_is_reserved_at_others(
    pool: Pool,
) -> None:
    limits = (ALL, Limits(concurrency=1), Limits(requests_per_minute=5))
    assert not (await ask(pool, "r0", *limits, groups=TEAM)).refused
    reply = await ask(pool, "r1", *limits, groups=TEAM)
    assert reply.refused["r1"] == Refusal("acme/", "concurrency", 1, 0, 1_000)
    assert {name: meter.in_flight for name, meter in (await pool.meters()).items()} == {
        "alice": 1,
        "acme/": 1,
        "acme/ml/": 1,
    }
    # bob's is alice's team; he has no limits of his own.
    call = Call()
    terms = Terms((Limits(), *limits[1:]))
    call.submit("b0", "bob", 1, 40, groups=TEAM, terms=terms)
    assert (await pool.call(ROUTER, call)).refused["b0"].node == "acme/"
    assert "bob" not in await pool.meters()


async def test_who_moves_or_loses_its_limits_leaves_nothing_behind(pool: Pool) -> None:
    await pool.offer(limit=1)
    await ask(pool, "r0", ALL, ALL, ALL, groups=TEAM)
    await ask(pool, "r1", ALL, ALL, ALL, groups=TEAM)
    call = Call()
    call.submit("r2", "alice", 1, 40, groups=(Group("other/"),))
    await pool.call(ROUTER, call)
    await pool.report("settle", "r0.1", Usage(10, 0, 2))
    await pool.route("cancel", "r1")
    assert [meter.in_flight for meter in (await pool.meters()).values()] == [0, 0, 0]
    await pool.route("cancel", "r2")
    assert await pool.leftovers() == []


async def test_what_was_let_in_before_is_let_in_again(pool: Pool) -> None:
    limit = Limits(requests_per_minute=1, concurrency=1)
    await ask(pool, "r0", limit)
    await pool.forget_everything()
    assert not (await ask(pool, "r1", limit)).refused  # of a router that was quicker
    assert not (await ask(pool, "r0", limit, admitted=True)).refused
    assert (await pool.meters())["alice"].in_flight == 2
    assert "r2" in (await ask(pool, "r2", limit)).refused
    for request in ("r0", "r1"):
        await pool.route("cancel", request)
    assert not await pool.meters()


async def test_a_lease_that_the_store_had_forgotten_counts_for_no_limit(pool: Pool) -> None:
    limit = Limits(1000, 1000, 1)
    call = Call()
    call.resync_lease("r0.1", "alice", 1, Usage(10, 0, 5))
    await pool.call(REPLICA, call)
    assert not (await ask(pool, "r1", limit)).refused
    await pool.report("settle", "r0.1", Usage(10, 0, 9))
    await pool.route("ended", "r0")
    assert (await pool.meters())["alice"].in_flight == 1
    await pool.route("cancel", "r1")
    assert not await pool.meters()


async def test_a_repeated_submit_reserves_once(pool: Pool) -> None:
    call = Call(number=1)
    call.submit("r0", "alice", 1, 40, terms=Terms((ALL,)))
    for _ in range(2):
        await pool.call(ROUTER, call)
    await ask(pool, "r0", ALL)
    meter = (await pool.meters())["alice"]
    assert (meter.requests, meter.tokens, meter.in_flight, meter.queued) == (1, 10, 1, 1)


async def test_what_a_cancelled_request_has_used_after_all_is_spent(pool: Pool) -> None:
    await pool.offer(limit=1)
    await ask(pool, "r0", ALL, ALL, groups=(ACME,))
    await pool.route("cancel", "r0")
    assert not await pool.meters()
    for _ in range(2):
        await pool.report("settle", "r0.1", Usage(10, 0, 5))
    meters = await pool.meters()
    assert {name: (of.requests, of.tokens) for name, of in meters.items()} == {
        "alice": (1, 15),
        "acme/": (1, 15),
    }


async def test_new_limits_hold_from_the_next_submit(pool: Pool) -> None:
    for n in range(4):
        await ask(pool, f"r{n}", Limits(requests_per_minute=60))
    refused = (await ask(pool, "r4", Limits(requests_per_minute=2))).refused["r4"]
    assert refused == Refusal("alice", "requests_per_minute", 2, 0, 90_000)
    assert not (await ask(pool, "r5", Limits(requests_per_minute=5))).refused
    assert not (await ask(pool, "r6", Limits(concurrency=9))).refused
    assert not (await ask(pool, "r7", Limits(requests_per_minute=1))).refused  # counted anew


# --- nothing leaks ----------------------------------------------------------------------------


@pytest.mark.parametrize("credits", [0, 1])
async def test_a_dead_router_leaves_nothing_reserved(pool: Pool, credits: int) -> None:
    """Its requests are swept, or dropped when it would be their turn."""
    for n in range(3):
        await ask(pool, f"r{n}", ALL, ALL, groups=(ACME,), by=OTHER_ROUTER)
    await pool.beat()
    pool.clock.pass_ms(4_000)
    await pool.offer(limit=credits)
    await pool.beat()
    assert len(await pool.meters()) == (0 if credits else 2)
    for _ in range(3):
        pool.clock.pass_ms(4_000)
        await pool.beat()
    assert not await pool.meters()


async def test_a_dead_replica_leaves_what_was_charged(pool: Pool) -> None:
    await pool.offer(limit=2)
    for n in range(2):
        await ask(pool, f"r{n}", Limits(1000, 1000, 10))
    await pool.report("charge", "r0.1", Usage(20, 0, 30))
    await pool.beat()
    for _ in range(3):
        pool.clock.pass_ms(4_000)
        await pool.beat()
    meter = (await pool.meters())["alice"]
    assert (meter.in_flight, meter.queued) == (0, 0)
    # Settled after 12 s, in which 200 were refilled: what was reserved had been refilled by then.
    assert meter.tokens == pytest.approx(30)
    pool.clock.pass_ms(MINUTE_MS)
    assert not await pool.meters()


async def test_a_grant_that_nobody_saw_gives_back_what_it_reserved(pool: Pool) -> None:
    await pool.offer(limit=1)
    await ask(pool, "r0", ALL)
    for _ in range(5):
        pool.clock.pass_ms(4_000)
        await pool.offer(limit=1)
        await pool.beat()
    assert not await pool.meters()
    assert (await pool.state("alice"))[1:] == (0, 0)


@pytest.mark.parametrize("seed", range(3))
async def test_any_history_ends_with_nothing_reserved(pool: Pool, seed: int) -> None:
    """Requests come, are granted, requeued, cancelled, cut off and forgotten; some calls twice."""
    random_ = random.Random(seed)
    replicas = [Sender("replica", f"replica-{n}") for n in range(2)]
    leases: dict[str, str] = {}
    for step in range(250):
        action = random_.choice(("ask", "ask", "offer", "settle", "charge", "route", "beat"))
        call, sender = Call(), random_.choice((ROUTER, OTHER_ROUTER))
        if action == "ask":
            groups = random_.choice(((), (ACME,), TEAM))
            limits = random_.choice((ALL, Limits(concurrency=8), Limits(30, 300)))
            terms = Terms((limits,) * (1 + len(groups)), admitted=random_.random() < 0.1)
            call.submit(f"r{step}", random_.choice("ab"), 1, 40, groups=groups, terms=terms)
            pool.submitted.append(f"r{step}")
        elif action in ("settle", "charge") and leases:
            lease = random_.choice(sorted(leases))
            sender = Sender("replica", leases[lease])
            usage = Usage(random_.randint(0, 30), 0, random_.randint(0, 30))
            getattr(call, action)(lease, usage)
        elif action == "route" and pool.submitted:
            request = random_.choice(pool.submitted)
            random_.choice((call.cancel, call.ended))(request)
            if leases:
                call.requeue(random_.choice(sorted(leases)))
        else:
            sender = random_.choice(replicas)
            call.offer(sender.name, step // 4, 0, step, 4096)
            call.heartbeat()
        for _ in range(random_.choice((1, 1, 2))):
            for grant in (await pool.call(sender, call)).grants:
                leases[grant.lease] = grant.replica
        for grant in await pool.reconcile_all():
            leases[grant.lease] = grant.replica
        pool.clock.pass_ms(random_.choice((1, 10, 1_000)))
    for _ in range(100):  # all fall silent but one, whose requests are cancelled
        pool.clock.pass_ms(4_000)
        for request in pool.submitted[-5:]:
            await pool.route("cancel", request)
        del pool.submitted[-5:]
        await pool.beat()
    assert not await pool.meters()
    assert await pool.leftovers() == []


async def test_idle_meters_are_dropped_from_the_store(pool: Pool) -> None:
    if pool.redis is None:
        pytest.skip("tests/unit/fairness/test_limits.py has it")
    for n in range(50):
        call = Call()
        call.submit(f"r{n}", f"client-{n}", 1, 40, terms=Terms((Limits(60, 1000),)))
        call.cancel(f"r{n}")
        await pool.call(ROUTER, call)
    assert len(await stored_meters(pool.redis)) == 50
    pool.clock.pass_ms(MINUTE_MS)
    for _ in range(40):
        await pool.beat()
    assert await stored_meters(pool.redis) == {}


# --- many at once -----------------------------------------------------------------------------


async def test_routers_at_once_never_overshoot(server_url: str) -> None:
    """Two routers submit as fast as they can, on connections of their own; what one ends, others
    begin."""
    limits = Limits(requests_per_minute=150, concurrency=20)
    groups = (Limits(concurrency=15),)
    let_in: list[str] = []
    over: list[str] = []
    most = 0

    async def client(session: Session, router: int, number: int) -> None:
        nonlocal most
        for n in range(15):
            name, call = f"{router}-{number}-{n}", Call()
            call.submit(name, "alice", 1, 40, groups=(ACME,), terms=Terms((limits, *groups)))
            reply = await session.execute(call)
            if name in reply.refused:
                over.append(name)
                continue
            let_in.append(name)
            most = max(most, len(let_in) - ended)
            await asyncio.sleep(0)
            await end(session, name)

    ended = 0

    async def end(session: Session, name: str) -> None:
        nonlocal ended
        call = Call()
        call.ended(name)
        ended += 1  # before it is sent: this test may count too few, never too many
        await session.execute(call)

    one, other, watch = connect(server_url), connect(server_url), connect(server_url)
    queues = [
        RedisQueue(redis, POOL, QueueSettings(), now_ms=lambda: 1_000_000) for redis in (one, other)
    ]
    sessions = [
        [Session(queue, Sender("router", f"r{n}-{m}")) for m in range(20)]
        for n, queue in enumerate(queues)
    ]
    await asyncio.gather(
        *(
            client(session, router, number)
            for router, many in enumerate(sessions)
            for number, session in enumerate(many)
        )
    )
    assert len(let_in) == 150  # a minute's worth, time stands still
    assert len(over) == 2 * 20 * 15 - 150
    assert most <= 15
    meters = await stored_meters(watch)
    assert {name: (of.in_flight, of.queued) for name, of in meters.items()} == {
        "alice": (0, 150),
        "acme/": (0, 150),
    }
    for redis in (one, other, watch):
        await redis.aclose()
