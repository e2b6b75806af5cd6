"""What every store promises: one suite for the store in memory and for the scripts on Valkey and on
Redis."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import pytest

from fairness.cost import ServiceCost
from fairness.prediction import POOL_WINDOW, PoolAverage, Prediction
from fairness.store.coalescer import Coalescer
from fairness.store.connection import connect, shared_secret
from fairness.store.contract import (
    Call,
    CallRefusedError,
    ClientState,
    GlobalQueue,
    Grant,
    GroupState,
    PoolState,
    QueueSettings,
    Reply,
    Sender,
    Usage,
)
from fairness.store.session import Session
from fairness.store.shadow import ShadowReport
from fairness.store.usage import LastDays, Used
from tests.integration.stores import (
    OTHER_REPLICA,
    OTHER_ROUTER,
    REPLICA,
    ROUTER,
    Pool,
    opened,
)

pytestmark = pytest.mark.integration


async def test_a_request_is_granted_at_once_when_credit_is_free(pool: Pool) -> None:
    await pool.offer(limit=1)
    (grant,) = await pool.submit("r1", "alice", size=40)
    assert (grant.request, grant.lease, grant.replica, grant.url) == (
        "r1",
        "r1.1",
        "replica-1",
        "http://replica-1",
    )
    assert grant.counter == 10  # 40 bytes at the first guess of 0.25 tokens a byte
    assert await pool.state("alice") == (10, 0, 1)


async def test_without_credit_it_waits_and_the_offer_publishes_the_grant(pool: Pool) -> None:
    async with pool.listening() as heard:
        assert await pool.submit("r1", "alice") == ()
        assert await pool.state("alice") == (0, 1, 0)
        await pool.offer(limit=1)
        async with asyncio.timeout(5):
            while not heard:
                await asyncio.sleep(0.01)
    assert [grant.lease for grant in heard] == ["r1.1"]


async def grants_in_order(pool: Pool, count: int, usage: Usage) -> list[str]:
    """Offer one credit at a time, settle each lease with `usage`; the clients served."""
    order = []
    for turn in range(1, count + 1):
        await pool.offer(limit=turn)
        (grant,) = await pool.reconcile_all()
        order.append(grant.request.split("-")[0])
        await pool.report("settle", grant.lease, usage)
    return order


async def test_equal_clients_alternate_whatever_their_backlog(pool: Pool) -> None:
    for n in range(12):
        await pool.submit(f"alice-{n:02}", "alice")
    for n in range(4):
        await pool.submit(f"bob-{n:02}", "bob")
    order = await grants_in_order(pool, 8, Usage(10, 0, 20))
    assert order == ["alice", "bob"] * 4  # a tie goes to the smaller name
    assert (await pool.state("alice"))[0] == (await pool.state("bob"))[0] == 4 * (10 + 2 * 20)


async def test_weight_two_is_granted_twice_as_often(pool: Pool) -> None:
    for n in range(30):
        await pool.submit(f"alice-{n:02}", "alice")
        await pool.submit(f"carol-{n:02}", "carol", weight=2)
    assert Counter(await grants_in_order(pool, 30, Usage(10, 0, 20))) == {"carol": 20, "alice": 10}


async def test_fcfs_grants_in_arrival_order(pool: Pool) -> None:
    await pool.set_policy("fcfs", "test")
    sent = ["alice", "alice", "bob", "alice", "bob"]
    for n, client in enumerate(sent):
        await pool.submit(f"{client}-{n:02}", client)
    assert await grants_in_order(pool, 5, Usage(10, 0, 20)) == sent


async def test_least_counter_first_lifts_nobody(pool: Pool) -> None:
    """LCF, the control: who comes late owns the pool until it has caught up."""
    await pool.set_policy("lcf", "test")
    for n in range(5):
        await pool.submit(f"alice-{n:02}", "alice")
    assert set(await grants_in_order(pool, 3, Usage(100, 0, 100))) == {"alice"}
    for n in range(4):
        await pool.submit(f"bob-{n:02}", "bob")
    assert (await pool.state("bob"))[0] == 0
    for turn in range(4, 8):
        await pool.offer(limit=turn)
        (grant,) = await pool.reconcile_all()
        assert grant.request.startswith("bob")
        await pool.report("settle", grant.lease, Usage(100, 0, 50))


async def test_a_priority_orders_the_requests_of_its_own_client_only(pool: Pool) -> None:
    for n, priority in enumerate((0, 7, -1_000, 1_000, -1_000)):
        await pool.submit(f"bob-{n}", "bob", priority=priority)
    for n in range(5):
        await pool.submit(f"alice-{n}", "alice")
    served = []
    for turn in range(1, 11):
        await pool.offer(limit=turn)
        (grant,) = await pool.reconcile_all()
        served.append(grant.request)
        await pool.report("settle", grant.lease, Usage(10, 0, 20))
    assert [name for name in served if name.startswith("bob")] == [
        f"bob-{n}" for n in (2, 4, 0, 1, 3)
    ]
    assert [name.split("-")[0] for name in served] == ["alice", "bob"] * 5


async def test_a_requeued_request_of_priority_goes_first_again(pool: Pool) -> None:
    await pool.offer(limit=1)
    await pool.submit("urgent", "alice", priority=-1)
    await pool.submit("other", "alice")
    await pool.route("requeue", "urgent.1")
    await pool.offer(limit=2)
    assert [grant.lease for grant in await pool.reconcile_all()] == ["urgent.2"]


async def test_a_policy_is_heeded_once_for_each_reason(pool: Pool) -> None:
    for name, reason in (("vtc", "deploy-1"), ("fcfs", "admin"), ("vtc", "deploy-1")):
        await pool.set_policy(name, reason)  # the last: a restarted router
    assert (await state_of(pool)).policy == "fcfs"
    with pytest.raises(ValueError, match="choose one of: vtc, lcf, fcfs"):
        Call().policy("random", "test")


async def test_an_estimate_is_no_larger_than_the_longest_prompt(pool: Pool) -> None:
    """Padding a body must not raise the counters that others are lifted to."""
    await pool.offer(limit=1)
    (grant,) = await pool.submit("r1", "mallory", size=8 * 2**20)
    assert grant.counter == 4096


async def test_a_failed_replica_is_passed_over_until_it_offers_again(pool: Pool) -> None:
    await pool.offer(limit=5)
    await pool.offer(limit=1, by=OTHER_REPLICA)
    (grant,) = await pool.submit("r1", "alice")
    assert grant.replica == "replica-1"
    await pool.route("requeue", "r1.1")
    (again,) = (await pool.route("reconcile", "r1")).grants
    assert again.replica == "replica-2"
    await pool.offer(limit=5)
    assert len(await pool.submit("r2", "alice")) == 1


async def test_another_replicas_word_on_a_lease_is_ignored(pool: Pool) -> None:
    await pool.offer(limit=1)
    await pool.submit("r1", "alice")
    await pool.report("settle", "r1.1", Usage(), by=OTHER_REPLICA)
    assert (await pool.state("alice"))[2] == 1


async def test_senders_are_not_blamed_for_the_stores_absence(pool: Pool) -> None:
    await pool.offer(limit=1)
    await pool.submit("r1", "alice")
    await pool.beat()
    pool.clock.pass_ms(30_000)  # nobody could reach the store
    await pool.beat(by=OTHER_ROUTER)
    assert (await pool.state("alice"))[2] == 1
    for _ in range(5):  # now it is there, and the replica still silent
        pool.clock.pass_ms(3_000)
        await pool.beat(by=OTHER_ROUTER)
    assert (await pool.state("alice"))[2] == 0


async def test_an_idle_client_is_lifted_and_saves_nothing_up(pool: Pool) -> None:
    await pool.submit("bob-0", "bob")
    await grants_in_order(pool, 1, Usage(1, 0, 0))
    for n in range(9):
        await pool.submit(f"alice-{n}", "alice")
    # (bob left last with counter 1, so alice starts there.)
    for turn in range(2, 8):
        await pool.offer(limit=turn)
        await pool.report("settle", f"alice-{turn - 2}.1", Usage(100, 0, 100))
    await pool.submit("bob-1", "bob")
    assert (await pool.state("bob"))[0] == (await pool.state("alice"))[0] == 1 + 6 * 300


async def test_with_a_burst_an_idle_client_comes_back_ahead_by_so_much_a_replica(
    store: str | None,
) -> None:
    async with opened(store, QueueSettings(burst=50)) as pool:
        await pool.offer(limit=0, by=REPLICA)
        await pool.offer(limit=0, by=OTHER_REPLICA)
        await pool.beat()  # finds two replicas
        for n in range(3):
            await pool.submit(f"alice-{n}", "alice", size=0)
        assert (await pool.state("alice"))[0] == 0
        await pool.offer(limit=1)
        await pool.report("settle", "alice-0.1", Usage(300, 0, 0))
        for client in ("bob", "carol"):  # the second is not measured by the first
            await pool.submit(client, client, size=0)
            assert (await pool.state(client))[0] == 300 - 100
        await pool.offer(limit=2)
        assert [grant.request for grant in await pool.reconcile_all()][-1] == "bob"
        await pool.report("settle", "bob.1", Usage(70, 0, 0))
        await pool.submit("bob-again", "bob", size=0)
        assert (await pool.state("bob"))[0] == 270, "what it has used it has used"


async def test_cached_prompt_tokens_may_cost_a_part(store: str | None) -> None:
    settings = QueueSettings(ServiceCost(cached_input_weight=0.25))
    async with opened(store, settings) as pool:
        await pool.offer(limit=1)
        await pool.submit("r1", "alice")
        await pool.report("charge", "r1.1", Usage(100, 80, 0))
        assert (await pool.state("alice"))[0] == 20 + 80 / 4
        await pool.report("settle", "r1.1", Usage(100, 80, 5))
        assert (await pool.state("alice"))[0] == 20 + 80 / 4 + 10
        (alice,) = await pool.queue.clients()
        assert (alice.service, alice.cached_tokens) == (50, 80)


async def test_the_client_that_left_last_sets_the_floor_of_an_empty_queue(pool: Pool) -> None:
    await pool.submit("alice-0", "alice")
    await grants_in_order(pool, 1, Usage(50, 0, 50))
    await pool.submit("bob-0", "bob")
    assert (await pool.state("bob"))[0] == 150


async def test_idle_clients_at_or_below_the_floor_are_forgotten(pool: Pool) -> None:
    await pool.submit("alice-0", "alice")
    await grants_in_order(pool, 1, Usage(50, 0, 50))
    await pool.submit("bob-0", "bob")  # raises the floor to alice's 150
    assert await pool.idle_clients() == []


async def test_charges_are_cumulative_and_repeats_change_nothing(pool: Pool) -> None:
    await pool.offer(limit=1)
    await pool.submit("r1", "alice")
    for usage in (Usage(7, 0, 1), Usage(7, 0, 5), Usage(7, 0, 3), Usage(7, 0, 5)):
        reply = await pool.report("charge", "r1.1", usage)
    assert reply.counters == {"alice": 7 + 2 * 5}
    for _ in range(2):
        await pool.report("settle", "r1.1", Usage(7, 0, 6))
    (alice,) = await pool.queue.clients()
    assert (alice.input_tokens, alice.output_tokens, alice.service, alice.counter) == (7, 6, 19, 19)
    assert await pool.leftovers() == []


async def test_what_a_stop_string_cut_off_is_given_back(pool: Pool) -> None:
    await pool.offer(limit=1)
    await pool.submit("r1", "alice")
    await pool.report("charge", "r1.1", Usage(7, 0, 9))
    await pool.report("settle", "r1.1", Usage(7, 0, 6))
    (alice,) = await pool.queue.clients()
    assert (alice.output_tokens, alice.counter, alice.service) == (6, 19, 19)


async def test_cached_input_is_not_service(pool: Pool) -> None:
    await pool.offer(limit=1)
    await pool.submit("r1", "alice")
    await pool.report("settle", "r1.1", Usage(input=100, cached=64, output=1))
    (alice,) = await pool.queue.clients()
    assert (alice.input_tokens, alice.cached_tokens, alice.service) == (100, 64, 36 + 2)


async def test_a_refused_request_is_free(pool: Pool) -> None:
    await pool.offer(limit=1)
    await pool.submit("r1", "alice", size=4000)
    await pool.report("settle", "r1.1", Usage())
    assert await pool.state("alice") == (0, 0, 0)
    assert await pool.leftovers() == []


async def test_submitting_twice_waits_once(pool: Pool) -> None:
    await pool.submit("r1", "alice")
    await pool.submit("r1", "alice")
    assert await pool.state("alice") == (0, 1, 0)


async def test_repeated_and_late_offers_change_nothing(pool: Pool) -> None:
    for n in range(5):
        await pool.submit(f"r{n}", "alice")
    for limit, version in ((2, 5), (2, 5), (4, 3)):
        call = Call()
        call.offer("http://replica-1", limit, 0, version, 4096)
        await pool.queue.execute(REPLICA, call)
    assert await pool.state("alice") == (20, 3, 2)


async def test_an_offer_may_be_lowered(pool: Pool) -> None:
    await pool.offer(limit=4)
    await pool.offer(limit=1)
    grants = [await pool.submit(f"r{n}", "alice") for n in range(2)]
    assert [len(granted) for granted in grants] == [1, 0]


async def test_a_store_that_forgot_a_replica_counts_from_what_arrived(pool: Pool) -> None:
    for n in range(5):
        await pool.submit(f"r{n}", "alice")
    await pool.offer(limit=1002, arrived=1000)
    assert (await pool.state("alice"))[1:] == (3, 2)


async def test_a_draining_replica_gets_nothing_more(pool: Pool) -> None:
    await pool.offer(limit=4)
    await pool.offer(limit=0)
    assert await pool.submit("r1", "alice") == ()


async def test_the_replica_with_most_credits_is_taken(pool: Pool) -> None:
    await pool.offer(limit=1)
    await pool.offer(limit=3, by=OTHER_REPLICA)
    replicas = [(await pool.submit(f"r{n}", "alice"))[0].replica for n in range(4)]
    assert Counter(replicas) == {"replica-2": 3, "replica-1": 1}


async def test_cancelling_while_waiting_is_free(pool: Pool) -> None:
    await pool.submit("r1", "alice")
    for _ in range(2):
        await pool.route("cancel", "r1")
    assert await pool.state("alice") == (0, 0, 0)
    assert await pool.leftovers() == []


async def test_cancelling_an_unsent_grant_returns_the_slot_when_the_replica_confirms(
    pool: Pool,
) -> None:
    await pool.offer(limit=1)
    await pool.submit("r1", "alice")
    await pool.route("cancel", "r1")
    assert await pool.state("alice") == (0, 0, 0)
    assert await pool.submit("r2", "alice") == ()  # the slot is not free yet
    assert (await pool.offer(limit=1)).voided == ("r1.1",)
    await pool.report("settle", "r1.1", Usage())
    assert (await pool.offer(limit=2)).voided == ()
    assert (await pool.state("alice"))[2] == 1


async def test_a_requeued_request_keeps_its_place_and_pays_nothing(pool: Pool) -> None:
    await pool.offer(limit=1)
    await pool.submit("r1", "alice")
    await pool.submit("r2", "alice")
    await pool.report("charge", "r1.1", Usage(10, 0, 3))
    for _ in range(2):
        await pool.route("requeue", "r1.1")
    (alice,) = await pool.queue.clients()
    assert (alice.waiting, alice.running, alice.service, alice.input_tokens) == (2, 0, 0, 0)
    await pool.report("settle", "r1.1", Usage(10, 0, 9))  # the dead lease speaks: too late
    await pool.offer(limit=2)
    assert [g.lease for g in (await pool.route("reconcile", "r1")).grants] == ["r1.2"]


async def test_a_requeue_that_comes_after_the_settlement_names_the_request_gone(
    pool: Pool,
) -> None:
    await pool.offer(limit=1)
    await pool.submit("r1", "alice")
    await pool.report("settle", "r1.1", Usage())
    assert (await pool.route("requeue", "r1.1")).gone == ("r1",)


async def test_leases_of_a_request_submitted_anew_are_numbered_on(pool: Pool) -> None:
    await pool.offer(limit=1)
    call = Call()
    call.submit("r1", "alice", 1, 40, attempt=3)
    (grant,) = (await pool.queue.execute(ROUTER, call)).grants
    assert grant.lease == "r1.4"


async def test_reconcile_tells_grants_again_and_names_the_unknown(pool: Pool) -> None:
    await pool.offer(limit=1)
    await pool.submit("r1", "alice")
    reply = await pool.route("reconcile", "r1")
    assert [grant.lease for grant in reply.grants] == ["r1.1"]
    assert (await pool.route("reconcile", "r9")).gone == ("r9",)


async def test_a_silent_replica_is_swept_and_its_leases_settled(pool: Pool) -> None:
    await pool.offer(limit=2)
    await pool.submit("r1", "alice")
    await pool.submit("r2", "bob")
    await pool.report("charge", "r1.1", Usage(10, 0, 5))
    pool.clock.pass_ms(11_000)
    await pool.beat()
    alice, bob = await pool.queue.clients()
    assert (alice.running, alice.service) == (0, 20)
    assert (bob.running, bob.service, bob.counter) == (0, 0, 10)  # lifted to alice, not charged
    assert (await state_of(pool)).replicas == {}
    assert await pool.leftovers() == []


async def test_a_silent_routers_requests_are_dropped(pool: Pool) -> None:
    await pool.submit("r1", "alice", by=OTHER_ROUTER)
    pool.clock.pass_ms(11_000)
    await pool.beat()
    assert (await pool.state("alice"))[1] == 0
    assert await pool.leftovers() == []


async def test_a_grant_no_replica_has_seen_is_taken_back(pool: Pool) -> None:
    await pool.offer(limit=1)
    await pool.submit("r1", "alice")
    for _ in range(6):
        assert await pool.state("alice") != (0, 0, 0)
        pool.clock.pass_ms(2_500)
        await pool.beat()
        await pool.beat(by=REPLICA)
    assert await pool.state("alice") == (0, 0, 0)
    assert (await pool.offer(limit=1)).voided == ("r1.1",)


async def test_a_silent_routers_grants_are_taken_back_sooner_than_others(pool: Pool) -> None:
    """One that is cut off would keep all credits, however many others wait."""
    await pool.offer(limit=3)
    await pool.submit("r1", "alice", by=OTHER_ROUTER)
    await pool.submit("r2", "alice", by=OTHER_ROUTER)
    await pool.submit("r3", "bob")
    await pool.report("charge", "r1.1", Usage(10, 0, 5))
    pool.clock.pass_ms(4_000)
    await pool.beat()
    assert (await pool.state("alice"), (await pool.state("bob"))[2]) == ((20, 0, 1), 1)
    assert (await pool.offer(limit=3)).voided == ("r2.1",)


async def test_the_estimate_learns_tokens_per_byte(pool: Pool) -> None:
    for n in range(200):
        await pool.offer(limit=n + 1)
        await pool.submit(f"r{n}", "alice", size=100)
        await pool.report("settle", f"r{n}.1", Usage(80, 0, 0))
    before = (await pool.state("alice"))[0]
    await pool.offer(limit=500)
    (grant,) = await pool.submit("last", "alice", size=100)
    assert grant.counter - before == 80


@pytest.mark.parametrize("seed", range(3))
async def test_any_history_ends_with_nothing_left(pool: Pool, seed: int) -> None:
    """Random submits, offers, charges, cancels, requeues, each call sent once or twice."""
    random_ = random.Random(seed)
    leases: dict[str, tuple[Sender, Usage]] = {}
    told: Counter[str] = Counter()
    limits: Counter[str] = Counter()
    senders = [Sender("replica", f"replica-{n}") for n in range(3)]

    async def twice(sender: Sender, call: Call) -> Reply:
        reply = await pool.call(sender, call)
        return await pool.call(sender, call) if random_.random() < 0.3 else reply

    for step in range(300):
        action = random_.choice(("submit", "submit", "offer", "charge", "settle", "requeue"))
        call, sender = Call(), ROUTER
        if action == "submit":
            call.submit(f"r{step}", random_.choice("abc"), random_.choice((1, 2)), 100)
            pool.submitted.append(f"r{step}")
        elif action == "offer":
            sender = random_.choice(senders)
            limits[sender.name] += random_.randint(0, 3)
            call.offer(sender.name, limits[sender.name] + 1, 0, step, 4096)
        elif leases and action == "requeue":
            lease = random_.choice(sorted(leases))
            leases.pop(lease)
            call.requeue(lease)
        elif leases:
            lease = random_.choice(sorted(leases))
            sender, usage = leases[lease]
            usage = Usage(10, 0, usage.output + random_.randint(0, 5))
            leases[lease] = (sender, usage)
            if action == "charge":
                call.charge(lease, usage)
            else:
                call.settle(lease, usage)
                leases.pop(lease)
                told["input"] += usage.input
                told["output"] += usage.output
        await twice(sender, call)
        for grant in await pool.reconcile_all():
            leases.setdefault(grant.lease, (Sender("replica", grant.replica), Usage()))
    # End: cancel what waits, settle what runs.
    for request in pool.submitted:
        await pool.route("cancel", request)
    for lease, (sender, usage) in leases.items():
        reply = await pool.report("settle", lease, usage, by=sender)
        if reply.counters:
            told["input"] += usage.input
            told["output"] += usage.output
    for sender in senders:
        for lease in (await pool.call(sender, Call())).voided:
            await pool.report("settle", lease, Usage(), by=sender)
    states = await pool.queue.clients()
    assert all((state.waiting, state.running) == (0, 0) for state in states)
    assert sum(state.input_tokens for state in states) == told["input"]
    assert sum(state.output_tokens for state in states) == told["output"]
    assert await pool.leftovers() == []


# --- a client that leaves, a request that goes back, a sender that ends -----------------------


async def test_a_requeued_client_is_not_lifted(pool: Pool) -> None:
    """It never went idle; where it stood before the grant is where it stands again."""
    await pool.offer(limit=1)
    await pool.submit("a1", "alice", size=400)  # charged 100
    await pool.submit("b1", "bob")
    await pool.offer(limit=2)
    await pool.report("settle", "b1.1", Usage(500, 0, 500))
    await pool.submit("b2", "bob")  # V rises to bob's 1500
    await pool.beat()
    await pool.route("requeue", "a1.1")
    assert (await pool.state("alice"))[:2] == (0, 1)


async def test_a_grant_cancelled_unseen_but_used_after_all_is_paid_for(pool: Pool) -> None:
    await pool.offer(limit=1)
    await pool.submit("r1", "alice", weight=2)
    await pool.route("cancel", "r1")
    assert (await pool.report("charge", "r1.1", Usage(10, 0, 2))).unknown == ()
    for _ in range(2):
        await pool.report("settle", "r1.1", Usage(10, 0, 5))
    alice = await pool.client("alice")
    assert (alice.input_tokens, alice.output_tokens, alice.service) == (10, 5, 20)
    assert alice.counter == 10  # its weight is 2


async def test_a_requeued_lease_that_was_used_after_all_is_free(pool: Pool) -> None:
    await pool.offer(limit=1)
    await pool.submit("r1", "alice")
    await pool.route("requeue", "r1.1")
    await pool.route("cancel", "r1")
    await pool.report("settle", "r1.1", Usage(10, 0, 5))
    assert (await pool.client("alice")).service == 0
    assert await pool.leftovers() == []


async def test_a_sender_that_leaves_is_swept_at_once(pool: Pool) -> None:
    await pool.submit("r1", "alice", by=OTHER_ROUTER)
    await pool.offer(limit=0)
    for sender in (OTHER_ROUTER, REPLICA):
        call = Call()
        call.leave()
        await pool.call(sender, call)
    await pool.beat()
    assert (await state_of(pool)).replicas == {}
    assert await pool.leftovers() == []


# --- prediction -----------------------------------------------------------------------------------


async def test_the_pools_average_is_of_everybody_and_follows(store: str | None) -> None:
    average = PoolAverage()
    async with opened(store, QueueSettings(prediction=Prediction("pool_average"))) as pool:
        for n in range(POOL_WINDOW + 20):
            await pool.submit(f"r{n}", f"client-{n % 3}", size=0)
            await pool.offer(limit=n + 1)
            output = n % 17 + 1
            await pool.report("settle", f"r{n}.1", Usage(0, 0, output))
            average = average.after(output)
        assert average.requests == POOL_WINDOW
        await pool.submit("last", "newcomer", size=0)
        before = (await pool.state("newcomer"))[0]
        await pool.offer(limit=POOL_WINDOW + 21)
        charged = (await pool.state("newcomer"))[0] - before
        assert charged == pytest.approx(2 * average.tokens)


@pytest.mark.parametrize(
    ("prediction", "reserved"),
    [
        (Prediction("moving_average"), (20 + 30 + 40 + 50 + 60) / 5),
        (Prediction("moving_average", share=0.5), (20 + 30 + 40 + 50 + 60) / 10),
        (Prediction("quantile", level=0.9), 60),
        (Prediction("quantile", level=0.5), 30),
        (Prediction("pool_average"), (10 + 20 + 30 + 40 + 50 + 60) / 6),
        (Prediction("none"), 0),
    ],
)
async def test_a_prediction_is_charged_at_the_grant_and_corrected(
    store: str | None, prediction: Prediction, reserved: float
) -> None:
    async with opened(store, QueueSettings(prediction=prediction)) as pool:
        await pool.submit("b0", "bob")  # so that alice, with a higher counter, is remembered
        for n, output in enumerate((10, 20, 30, 40, 50, 60)):
            await pool.submit(f"a{n}", "alice")
            await pool.offer(limit=n + 2)
            await pool.report("settle", f"a{n}.1", Usage(10, 0, output))
        before = (await pool.state("alice"))[0]
        assert before == 6 * 10 + 2 * (10 + 20 + 30 + 40 + 50 + 60)
        await pool.submit("last", "alice", size=0)
        await pool.offer(limit=9)
        assert (await pool.state("alice"))[0] == before + 2 * reserved
        for made in (1, max(1, int(reserved))):
            await pool.report("charge", "last.1", Usage(7, 0, made))
            assert (await pool.state("alice"))[0] == before + 7 + 2 * max(reserved, made)
        await pool.report("charge", "last.1", Usage(7, 0, 100))
        assert (await pool.state("alice"))[0] == before + 7 + 200
        await pool.report("settle", "last.1", Usage(7, 0, 70))
        assert (await pool.state("alice"))[0] == before + 7 + 140
        assert (await pool.client("alice")).output_tokens == 210 + 70


# --- numbered calls: what comes again, what the store has forgotten ---------------------------


def numbered(number: int, acked: int) -> Call:
    return Call(number=number, acked=acked)


async def test_a_submit_that_comes_again_after_its_settlement_leaves_no_ghost(pool: Pool) -> None:
    await pool.offer(limit=2)
    call = numbered(1, 0)
    call.submit("r1", "alice", 1, 40)
    assert len((await pool.call(ROUTER, call)).grants) == 1
    await pool.report("settle", "r1.1", Usage(10, 0, 1))
    assert await pool.call(ROUTER, call) == Reply()
    assert await pool.leftovers() == []


async def test_a_settlement_that_comes_again_is_not_taken_for_a_lost_lease(pool: Pool) -> None:
    await pool.offer(limit=1)
    await pool.submit("r1", "alice")
    call = numbered(1, 0)
    call.settle("r1.1", Usage(10, 0, 5))
    await pool.call(REPLICA, call)
    assert (await pool.call(REPLICA, call)).unknown == ()
    other = numbered(2, 0)  # the reply to 1 never came: said anew in another call
    other.settle("r1.1", Usage(10, 0, 5))
    assert (await pool.call(REPLICA, other)).unknown == ()
    late = numbered(3, 2)  # heard of by now: what comes again is taken for lost
    late.settle("r1.1", Usage(10, 0, 5))
    assert (await pool.call(REPLICA, late)).unknown == ("r1.1",)


async def test_a_lease_unknown_in_an_unheard_call_is_still_unknown_in_the_next(pool: Pool) -> None:
    """A stopped store answers calls when nobody listens any more."""
    for number in (1, 2, 3):
        call = numbered(number, 0)
        call.settle("r1.1", Usage(10, 0, 5))
        assert (await pool.call(REPLICA, call)).unknown == ("r1.1",)
    for number in (4, 5):
        call = numbered(number, 3)
        call.resync_lease("r1.1", "alice", 1, Usage())
        call.settle("r1.1", Usage(10, 0, 5))
        assert (await pool.call(REPLICA, call)).unknown == ()
    assert (await pool.client("alice")).output_tokens == 5
    assert await pool.leftovers() == []


async def test_a_sender_is_told_of_a_loss_until_it_has_heard(pool: Pool) -> None:
    assert not (await pool.call(REPLICA, numbered(5, 0))).lost
    assert not (await pool.call(REPLICA, numbered(6, 5))).lost
    await pool.forget_everything()
    assert (await pool.call(REPLICA, numbered(7, 6))).lost
    assert (await pool.call(REPLICA, numbered(7, 6))).lost  # that reply was lost
    assert (await pool.call(REPLICA, numbered(8, 6))).lost
    assert not (await pool.call(REPLICA, numbered(9, 8))).lost


async def test_a_router_that_was_swept_is_told_to_resync(pool: Pool) -> None:
    await pool.call(OTHER_ROUTER, numbered(1, 0))
    await pool.beat()
    await silent_for(pool, 16_000)
    assert (await pool.call(OTHER_ROUTER, numbered(2, 1))).lost


async def silent_for(pool: Pool, milliseconds: int) -> None:
    """Only one router is heard of."""
    for _ in range(milliseconds // 4_000):
        pool.clock.pass_ms(4_000)
        await pool.beat()


async def test_a_replica_that_was_cut_off_and_swept_goes_on_where_it_was(pool: Pool) -> None:
    """What it used alone is charged, once; nothing else is, and each request is counted once."""
    await pool.offer(limit=4)
    for name in ("open", "ended", "unseen", "said"):
        await pool.submit(name, "alice")
    call = numbered(1, 0)
    call.charge("open.1", Usage(10, 4, 5))
    call.charge("ended.1", Usage(10, 0, 1))
    call.settle("said.1", Usage(1, 0, 1))
    await pool.call(REPLICA, call)
    await silent_for(pool, 16_000)
    assert (await state_of(pool)).replicas == {}
    assert (await pool.state("alice"))[1:] == (0, 0)

    def report(call: Call) -> Call:
        call.charge("open.1", Usage(10, 4, 25))
        call.settle("ended.1", Usage(10, 0, 7))
        call.settle("unseen.1", Usage(20, 0, 3))
        return call

    call = report(numbered(2, 0))
    call.settle("said.1", Usage(1, 0, 1))  # the reply to the first call never came
    reply = await pool.call(REPLICA, call)
    assert not reply.lost
    assert sorted(reply.unknown) == ["ended.1", "open.1", "unseen.1"]
    call = numbered(3, 2)
    for lease in reply.unknown:
        call.resync_lease(lease, "alice", 1, Usage())
    report(call)
    for _ in range(2):  # it comes twice
        assert (await pool.call(REPLICA, call)).unknown == ()
    assert (await pool.state("alice"))[1:] == (0, 1)
    await pool.report("settle", "open.1", Usage(10, 4, 30))
    assert await pool.usage() == {0: Used(4, 41, 4, 41, 37 + 82)}
    assert (await pool.state("alice"))[0] == 37 + 82
    assert await pool.leftovers() == []


async def test_what_is_kept_of_a_swept_replica_goes_after_an_hour(pool: Pool) -> None:
    await pool.offer(limit=1)
    await pool.submit("r1", "alice")
    call = numbered(1, 0)
    call.charge("r1.1", Usage(10, 0, 5))
    await pool.call(REPLICA, call)
    await silent_for(pool, 16_000)
    assert not (await pool.call(REPLICA, numbered(2, 1))).lost
    await silent_for(pool, 16_000)
    await silent_for(pool, 3_604_000)
    assert (await pool.call(REPLICA, numbered(3, 2))).lost


async def test_nothing_is_kept_of_a_replica_that_left(pool: Pool) -> None:
    call = numbered(1, 0)
    call.offer("http://one", 0, 0, 1, 1_000)
    call.leave()
    await pool.call(REPLICA, call)
    await pool.beat()
    assert (await pool.call(REPLICA, numbered(2, 1))).lost


async def test_nothing_is_charged_in_a_call_that_finds_a_loss(pool: Pool) -> None:
    """What the replica says when it resyncs is in the counters already."""
    await pool.offer(limit=1)
    await pool.submit("r1", "alice")
    await pool.call(REPLICA, numbered(1, 0))
    before = await pool.state("alice")
    call = numbered(9, 8)
    call.charge("r1.1", Usage(10, 0, 5))
    call.settle("r1.1", Usage(10, 0, 5))
    reply = await pool.call(REPLICA, call)
    assert (reply.lost, reply.counters, reply.unknown) == (True, {}, ())
    assert await pool.state("alice") == before


async def test_an_empty_store_is_told_everything_again(pool: Pool) -> None:
    """Two replicas and a router resync in any order; counters merge by max, V holds."""
    await pool.forget_everything()
    call = Call()
    call.submit("w1", "bob", 1, 40)  # a router that has not yet heard of the loss
    await pool.call(ROUTER, call)
    for by, lease, usage, counter in (
        (REPLICA, "a1.1", Usage(10, 0, 5), 5_000.0),
        (OTHER_REPLICA, "a2.3", Usage(20, 0, 7), 5_010.0),
    ):
        call = Call()
        call.resync_pool(PoolState("fcfs", 3, 4_000))
        call.resync_lease(lease, "alice", 2, usage)
        call.resync_client("alice", counter)
        for _ in range(2):  # twice changes nothing
            await pool.call(by, call)
    state = await state_of(pool)
    assert (state.policy, state.policy_version, state.virtual_time) == ("fcfs", 3, 4_000)
    assert await pool.state("alice") == (5_010, 0, 2)
    assert await pool.state("bob") == (4_000, 1, 0)
    # From here on only what exceeds it is charged.
    await pool.report("charge", "a1.1", Usage(10, 0, 8))
    await pool.report("settle", "a2.3", Usage(20, 0, 7), by=OTHER_REPLICA)
    assert await pool.state("alice") == (5_010 + 2 * 3 / 2, 0, 1)
    await pool.report("settle", "a1.1", Usage(10, 0, 8))
    await pool.route("cancel", "w1")
    assert await pool.leftovers() == []


async def test_a_heartbeat_tells_where_a_newcomer_would_start(pool: Pool) -> None:
    """V itself rises only when somebody is lifted; who resyncs an empty store must not set it to a
    level of long ago."""
    await pool.submit("a1", "alice")
    await pool.offer(limit=1)
    await pool.submit("a2", "alice")
    await pool.report("settle", "a1.1", Usage(700, 0, 100))
    assert (await state_of(pool)).virtual_time == 900
    await pool.route("cancel", "a2")


async def test_a_lease_whose_grant_was_lost_is_named_and_then_charged_in_full(pool: Pool) -> None:
    """A failover lost the grant; the request still stands in line, or was granted again."""
    await pool.submit("r1", "alice")
    reply = await pool.report("charge", "r1.1", Usage(10, 0, 5))
    assert reply.unknown == ("r1.1",)
    call = Call()
    call.resync_lease("r1.1", "alice", 1, Usage())
    call.charge("r1.1", Usage(10, 0, 5))
    await pool.call(REPLICA, call)
    assert await pool.state("alice") == (20, 0, 1)
    await pool.report("settle", "r1.1", Usage(10, 0, 5))
    assert await pool.leftovers() == []


async def test_of_two_replicas_with_one_lease_the_one_that_saw_it_keeps_it(pool: Pool) -> None:
    await pool.offer(limit=1, by=OTHER_REPLICA)
    (grant,) = await pool.submit("r1", "alice")  # made a second time, after a failover
    assert grant.replica == OTHER_REPLICA.name
    assert (await pool.report("charge", "r1.1", Usage(10, 0, 5))).unknown == ("r1.1",)
    call = Call()
    call.resync_lease("r1.1", "alice", 1, Usage())
    call.charge("r1.1", Usage(10, 0, 5))
    await pool.call(REPLICA, call)
    assert await pool.state("alice") == (20, 0, 1)
    assert (await pool.call(OTHER_REPLICA, Call())).voided == ("r1.1",)
    await pool.report("settle", "r1.1", Usage(), by=OTHER_REPLICA)
    await pool.report("settle", "r1.1", Usage(10, 0, 5))
    assert await pool.state("alice") == (20, 0, 0)
    assert await pool.leftovers() == []


async def test_a_resynced_lease_of_a_request_that_went_on_is_ignored(pool: Pool) -> None:
    await pool.offer(limit=1)
    await pool.submit("r1", "alice")
    await pool.route("requeue", "r1.1")
    call = Call()
    call.resync_lease("r1.1", "alice", 1, Usage(10, 0, 5))
    await pool.call(OTHER_REPLICA, call)
    assert (await pool.state("alice"))[1:] == (1, 0)


async def test_a_session_numbers_its_calls_and_repeats_a_failed_one_unchanged() -> None:
    sent: list[tuple[int, int]] = []

    class Flaky:
        async def execute(self, sender: Sender, call: Call) -> Reply:
            sent.append((call.number, call.acked))
            if len(sent) == 2:
                raise ConnectionError
            return Reply()

        def granted(self, router: str) -> AsyncIterator[tuple[Grant, ...]]: ...

        async def clients(self) -> list[ClientState]:
            return []

        async def groups(self) -> list[GroupState]:
            return []

        async def shadow(self) -> ShadowReport: ...

        async def last_days(self, clients: Sequence[str] | None = None) -> LastDays: ...

        async def used_on(
            self, day: int, clients: Sequence[str] | None = None
        ) -> dict[str, Used]: ...

    queue: GlobalQueue = Flaky()
    session = Session(queue, ROUTER)
    first, second = Call(), Call()
    await session.execute(first)
    with pytest.raises(ConnectionError):
        await session.execute(second)
    await session.execute(second)
    await session.execute(Call())
    assert sent == [(1, 0), (2, 1), (2, 1), (3, 2)]


async def test_a_verb_that_the_store_refuses_keeps_no_other_from_being_heard(pool: Pool) -> None:
    session = Session(pool.queue, ROUTER)
    call = Call()
    call.submit("r1", "alice", 1, 40)
    call.verbs.append(("nonsense", 1))
    call.submit("r2", "alice", 1, 40)
    with pytest.raises(CallRefusedError):
        await pool.queue.execute(ROUTER, Call([("nonsense", 1)]))
    await session.execute(call)
    assert (await pool.state("alice"))[1] == 2


async def state_of(pool: Pool) -> PoolState:
    state = (await pool.beat()).pool
    assert state is not None
    return state


# --- what stands on the queue -------------------------------------------------------------------


async def test_the_coalescer_shares_round_trips(pool: Pool) -> None:
    granted: list[str] = []
    calls = 0

    session = Session(pool.queue, ROUTER)

    async def execute(call: Call) -> Reply:
        nonlocal calls
        calls += 1
        return await session.execute(call)

    coalescer = Coalescer(
        execute, lambda reply: granted.extend(grant.request for grant in reply.grants)
    )
    await pool.offer(limit=1000)
    task = asyncio.create_task(coalescer.run())
    for n in range(1000):
        coalescer.pending.submit(f"r{n}", "alice", 1, 40)
    coalescer.kick()
    async with asyncio.timeout(10):
        while len(granted) < 1000:
            await asyncio.sleep(0.01)
    task.cancel()
    assert calls <= 12


async def test_all_share_one_secret(server_url: str) -> None:
    redis = connect(server_url)
    first, second = await asyncio.gather(
        shared_secret(redis, "grant"), shared_secret(redis, "grant")
    )
    await redis.aclose()
    assert first == second
    assert len(first) == 32
