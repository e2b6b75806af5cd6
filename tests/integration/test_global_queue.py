"""The Lua queue against real servers (Valkey and Redis): scenarios of the contract."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from fairness.store.coalescer import Coalescer
from fairness.store.contract import Call, Grant, QueueSettings, Reply, Sender, Usage
from fairness.store.redis_store import RedisQueue, connect, shared_secret

pytestmark = pytest.mark.integration

ROUTER = Sender("router", "router-1")
OTHER_ROUTER = Sender("router", "router-2")
REPLICA = Sender("replica", "replica-1")


class Pool:
    """A pool driven by hand: every method is one call of one sender."""

    def __init__(self, redis: Redis, settings: QueueSettings) -> None:
        self.redis = redis
        self.settings = settings
        self.queue = RedisQueue(redis, "tiny", settings)
        self.version = 0

    async def submit(
        self, request: str, client: str, weight: float = 1, size: int = 40, by: Sender = ROUTER
    ) -> tuple[Grant, ...]:
        call = Call()
        call.submit(request, client, weight, size)
        return (await self.queue.execute(by, call)).grants

    async def offer(self, limit: int, arrived: int = 0, by: Sender = REPLICA) -> Reply:
        call = Call()
        self.version += 1
        call.offer(f"http://{by.name}", limit, arrived, self.version, 4096)
        return await self.queue.execute(by, call)

    async def report(self, verb: str, lease: str, usage: Usage, by: Sender = REPLICA) -> Reply:
        call = Call()
        getattr(call, verb)(lease, usage)
        return await self.queue.execute(by, call)

    async def route(self, verb: str, name: str, by: Sender = ROUTER) -> Reply:
        call = Call()
        getattr(call, verb)(name)
        return await self.queue.execute(by, call)

    async def set_policy(self, name: str, reason: str) -> None:
        call = Call()
        call.policy(name, reason)
        await self.queue.execute(ROUTER, call)

    async def sweep(self, by: Sender = ROUTER) -> Reply:
        call = Call()
        call.heartbeat()
        return await self.queue.execute(by, call)

    async def state(self, client: str) -> tuple[float, int, int]:
        """(counter, waiting, running)."""
        for state in await self.queue.clients():
            if state.client == client:
                return state.counter, state.waiting, state.running
        return 0.0, 0, 0

    async def leftovers(self) -> list[str]:
        """Keys that should be gone when nothing is waiting or running."""
        kinds = (
            "request:",
            "line:",
            "leases:",
            "routed:",
            "void:",
            "arrivals",
            "unseen",
            "running",
        )
        prefix = "fairlane:1:{tiny}:"
        keys = [key async for key in self.redis.scan_iter(f"{prefix}*")]
        return sorted(key for key in keys if key.removeprefix(prefix).startswith(kinds))


@pytest_asyncio.fixture
async def redis(server_url: str) -> AsyncIterator[Redis]:
    client = connect(server_url)
    yield client
    await client.aclose()


@pytest.fixture
def pool(redis: Redis) -> Pool:
    return Pool(redis, QueueSettings())


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
    heard: list[Grant] = []

    async def listen() -> None:
        async for grants in pool.queue.granted(ROUTER.name):
            heard.extend(grants)

    listener = asyncio.create_task(listen())
    await asyncio.sleep(0.1)
    assert await pool.submit("r1", "alice") == ()
    assert await pool.state("alice") == (0, 1, 0)
    await pool.offer(limit=1)
    async with asyncio.timeout(5):
        while not heard:
            await asyncio.sleep(0.01)
    listener.cancel()
    assert [grant.lease for grant in heard] == ["r1.1"]


async def grants_in_order(pool: Pool, count: int, usage: Usage) -> list[str]:
    """Offer one credit at a time, settle each lease with `usage`; the clients served."""
    order = []
    for turn in range(1, count + 1):
        await pool.offer(limit=turn)
        leased = await pool.redis.smembers("fairlane:1:{tiny}:leases:replica-1")
        (request,) = leased
        order.append(str(request).split("-")[0])
        await pool.report("settle", f"{request}.1", usage)
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


async def test_a_policy_is_heeded_once_for_each_reason(pool: Pool) -> None:
    for name, reason in (("vtc", "deploy-1"), ("fcfs", "admin"), ("vtc", "deploy-1")):
        await pool.set_policy(name, reason)  # the last: a restarted router
    assert (await pool.sweep()).policy == "fcfs"
    with pytest.raises(ValueError, match="vtc, fcfs"):
        Call().policy("random", "test")


async def test_an_estimate_is_no_larger_than_the_longest_prompt(pool: Pool) -> None:
    """Padding a body must not raise the counters that others are lifted to."""
    await pool.offer(limit=1)
    (grant,) = await pool.submit("r1", "mallory", size=8 * 2**20)
    assert grant.counter == 4096


async def test_a_failed_replica_is_passed_over_until_it_offers_again(pool: Pool) -> None:
    await pool.offer(limit=5)
    await pool.offer(limit=1, by=Sender("replica", "replica-2"))
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
    await pool.report("settle", "r1.1", Usage(), by=Sender("replica", "replica-2"))
    assert (await pool.state("alice"))[2] == 1


async def test_senders_are_not_blamed_for_the_stores_absence(redis: Redis) -> None:
    pool = Pool(redis, QueueSettings(sender_ttl_ms=100))
    await pool.offer(limit=1)
    await pool.submit("r1", "alice")
    await pool.sweep()
    await asyncio.sleep(0.3)  # nobody could reach the store
    await pool.sweep(by=OTHER_ROUTER)
    assert (await pool.state("alice"))[2] == 1
    for _ in range(5):  # now it is there, and the replica still silent
        await asyncio.sleep(0.03)
        await pool.sweep(by=OTHER_ROUTER)
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


async def test_the_client_that_left_last_sets_the_floor_of_an_empty_queue(pool: Pool) -> None:
    await pool.submit("alice-0", "alice")
    await grants_in_order(pool, 1, Usage(50, 0, 50))
    await pool.submit("bob-0", "bob")
    assert (await pool.state("bob"))[0] == 150


async def test_idle_clients_at_or_below_the_floor_are_forgotten(pool: Pool) -> None:
    await pool.submit("alice-0", "alice")
    await grants_in_order(pool, 1, Usage(50, 0, 50))
    await pool.submit("bob-0", "bob")  # raises the floor to alice's 150
    assert await pool.redis.zcard("fairlane:1:{tiny}:idle") == 0


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
    await pool.offer(limit=3, by=Sender("replica", "replica-2"))
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


async def test_a_silent_replica_is_swept_and_its_leases_settled(redis: Redis) -> None:
    pool = Pool(redis, QueueSettings(sender_ttl_ms=50))
    await pool.offer(limit=2)
    await pool.submit("r1", "alice")
    await pool.submit("r2", "bob")
    await pool.report("charge", "r1.1", Usage(10, 0, 5))
    await asyncio.sleep(0.1)
    await pool.sweep()
    alice, bob = await pool.queue.clients()
    assert (alice.running, alice.service) == (0, 20)
    assert (bob.running, bob.service, bob.counter) == (0, 0, 10)  # lifted to alice, not charged
    assert (await pool.sweep()).replicas == {}
    assert await pool.leftovers() == []


async def test_a_silent_routers_requests_are_dropped(redis: Redis) -> None:
    pool = Pool(redis, QueueSettings(sender_ttl_ms=50))
    await pool.submit("r1", "alice", by=OTHER_ROUTER)
    await asyncio.sleep(0.1)
    await pool.sweep()
    assert (await pool.state("alice"))[1] == 0
    assert await pool.leftovers() == []


async def test_a_grant_no_replica_has_seen_is_taken_back(redis: Redis) -> None:
    pool = Pool(redis, QueueSettings(grant_ttl_ms=1))
    await pool.offer(limit=1)
    await pool.submit("r1", "alice")
    await asyncio.sleep(0.05)
    await pool.sweep()
    assert await pool.state("alice") == (0, 0, 0)
    assert (await pool.offer(limit=1)).voided == ("r1.1",)


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
        reply = await pool.queue.execute(sender, call)
        return await pool.queue.execute(sender, call) if random_.random() < 0.3 else reply

    for step in range(400):
        action = random_.choice(("submit", "submit", "offer", "charge", "settle", "requeue"))
        call, sender = Call(), ROUTER
        if action == "submit":
            call.submit(f"r{step}", random_.choice("abc"), random_.choice((1, 2)), 100)
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
        # Leases as the store has them; a lost or doubled reply does not matter here.
        for replica in senders:
            ids = await pool.redis.smembers(f"fairlane:1:{{tiny}}:leases:{replica.name}")
            for request in ids:
                attempt = await pool.redis.hget(f"fairlane:1:{{tiny}}:request:{request}", "attempt")
                leases.setdefault(f"{request}.{attempt}", (replica, Usage()))
    # End: cancel what waits, settle what runs.
    for step in range(400):
        await pool.route("cancel", f"r{step}")
    for lease, (sender, usage) in leases.items():
        reply = await pool.report("settle", lease, usage, by=sender)
        if reply.counters:
            told["input"] += usage.input
            told["output"] += usage.output
    for sender in senders:
        for lease in (await pool.queue.execute(sender, Call())).voided:
            await pool.report("settle", lease, Usage(), by=sender)
    states = await pool.queue.clients()
    assert all((state.waiting, state.running) == (0, 0) for state in states)
    assert sum(state.input_tokens for state in states) == told["input"]
    assert sum(state.output_tokens for state in states) == told["output"]
    assert await pool.leftovers() == []


async def test_the_coalescer_shares_round_trips(pool: Pool) -> None:
    granted: list[str] = []
    calls = 0

    class Counting(RedisQueue):
        async def execute(self, sender: Sender, call: Call) -> Reply:
            nonlocal calls
            calls += 1
            return await super().execute(sender, call)

    queue = Counting(pool.redis, "tiny", pool.settings)
    coalescer = Coalescer(
        queue.execute, ROUTER, lambda reply: granted.extend(g.request for g in reply.grants)
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


async def test_all_share_one_secret(redis: Redis) -> None:
    first, second = await asyncio.gather(
        shared_secret(redis, "grant"), shared_secret(redis, "grant")
    )
    assert first == second
    assert len(first) == 32
