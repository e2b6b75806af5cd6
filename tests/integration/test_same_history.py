"""The scripts on a real server and the store in memory, driven by the same random history: the
same replies, the same grants in the same order, the same counters and usage to the last bit.

Histories hold what real ones do: several senders, several verbs a call, calls that come twice or
late, replies that are lost, senders that fall silent, stores that come back as they were some calls
ago or empty, idle clients dropped, and every predictor.
"""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fairness.classes import Classes, ServiceClass, split_class
from fairness.cost import ServiceCost
from fairness.groups import Group
from fairness.limits import Limits, Terms
from fairness.policy import POLICIES
from fairness.prediction import PREDICTORS, Prediction
from fairness.store.connection import connect
from fairness.store.contract import (
    PRIORITY_LIMIT,
    Call,
    GlobalQueue,
    Grant,
    PoolState,
    QueueSettings,
    Reply,
    Sender,
    Usage,
)
from fairness.store.memory_store import MemoryPool, MemoryQueue
from fairness.store.redis_store import RedisQueue
from fairness.store.usage import DAY_MS, DailyUsage, Used
from tests.integration.stores import POOL, PREFIX, Clock, stored_meters, telling

pytestmark = pytest.mark.integration

ROUTERS = [Sender("router", f"router-{n}") for n in range(2)]
REPLICAS = [Sender("replica", f"replica-{n}") for n in range(3)]
NEIGHBOURS = [Sender("neighbour", f"neighbour-{n}") for n in range(2)]
CLIENTS = ["alice", "bob", "carol", "the client of many names", "é"]
REQUESTS = [f"r{n}" for n in range(30)]
A, A1, A2, B = Group("a/", 3.0), Group("a/1/"), Group("a/2/", 0.7), Group("b/")
RETENTION_DAYS = 5
HIGH, LOW, FORMER = Group("class:high/"), Group("class:low/"), Group("class:of old/")
GROUPS = [
    *((), (), (A,), (A, A1), (A, A2), (B,), (Group("b/", 2.0),), (HIGH,), (LOW,), (FORMER,)),
    (LOW, Group("class:low/a/", 3.0)),
    (FORMER, Group("class:of old/a/", 2.0)),
]
CLASSES = [
    Classes(),
    Classes((ServiceClass("high"), ServiceClass("low", 0.1))),
    Classes((ServiceClass("high"), ServiceClass("mid", 0.25), ServiceClass("low", 0.07))),
]

request_ids = st.sampled_from(REQUESTS)
usages = st.builds(Usage, st.integers(0, 90), st.integers(0, 9), st.integers(0, 60))
weights = st.sampled_from([1, 2, 0.3])
LIMITS = [
    Limits(),
    Limits(requests_per_minute=7),
    Limits(tokens_per_minute=131, concurrency=4),
    Limits(requests_per_minute=30, tokens_per_minute=90, queued_requests=3),
    Limits(concurrency=3, queued_bytes=500),
]


class Both(RuleBasedStateMachine):
    """Two stores, one history."""

    url: str

    @initialize(
        predictor=st.sampled_from(sorted(PREDICTORS)),
        share=st.sampled_from([1.0, 0.5]),
        cost=st.sampled_from([ServiceCost(), ServiceCost(0.3, 0.7, 0.1)]),
        burst=st.sampled_from([0.0, 12.3]),
        classes=st.sampled_from(CLASSES),
    )
    def begin(
        self, predictor: str, share: float, cost: ServiceCost, burst: float, classes: Classes
    ) -> None:
        self.clock = Clock()
        self.loop = asyncio.new_event_loop()
        self.redis = connect(self.url)
        self.loop.run_until_complete(self.redis.flushall())
        self.settings = QueueSettings(
            cost,
            prediction=Prediction(predictor, share, 0.7),
            burst=burst,
            usage_retention_days=RETENTION_DAYS,
            classes=classes,
        )
        self.store = RedisQueue(self.redis, POOL, self.settings, self.clock)
        self.published: list[Grant] = []
        self.memory = self.empty_memory()
        self.listener = redis.Redis.from_url(self.url, decode_responses=True).pubsub()
        self.listener.psubscribe(f"{PREFIX}grants:*")
        self.listener.get_message(timeout=1)
        self.numbers = {sender.name: 0 for sender in (*ROUTERS, *REPLICAS, *NEIGHBOURS)}
        self.acked = dict(self.numbers)
        self.sent: list[tuple[Sender, Call]] = []
        self.leases: dict[str, str] = {"r0.1": REPLICAS[0].name}
        self.versions = 0
        self.limits = dict.fromkeys(self.numbers, 0)
        self.saved: tuple[Any, dict[str, bytes]] | None = None

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        self.same_clients()
        self.same_shadow()
        self.same_usage()
        self.listener.close()
        self.loop.run_until_complete(self.redis.aclose())
        self.loop.close()

    def empty_memory(self) -> MemoryPool:
        return MemoryPool(
            self.settings, self.clock, lambda _, grants: self.published.extend(grants)
        )

    # --- what senders do --------------------------------------------------------------------

    @rule(
        router=st.sampled_from(ROUTERS),
        requests=st.lists(
            st.tuples(
                request_ids,
                st.sampled_from(CLIENTS),
                weights,
                st.integers(0, 400),
                st.sampled_from([0, 0, -1, PRIORITY_LIMIT]),
                st.sampled_from(GROUPS),
                st.sampled_from([None, False, True]),
                st.sampled_from([None, None, *range(8)]),
                st.sampled_from([None, None, 3, 0.7]),
            ),
            min_size=1,
            max_size=5,
        ),
        heard=st.booleans(),
    )
    def submit(self, router: Sender, requests: list[Any], heard: bool) -> None:
        call = Call()
        for request, client, weight, size, priority, groups, explain, seed, price in requests:
            call.submit(
                request, client, weight, size, priority=priority, groups=groups,
                terms=some_terms(seed, groups),
            )  # fmt: skip
            if price is not None:
                call.price(request, price)
            if explain is not None:
                call.explain(request, standing=explain)
        self.send(router, call, heard)

    @rule(
        router=st.sampled_from(ROUTERS),
        verb=st.sampled_from(["cancel", "reconcile", "requeue", "ended"]),
        data=st.data(),
        heard=st.booleans(),
    )
    def route(self, router: Sender, verb: str, data: Any, heard: bool) -> None:
        call = Call()
        if verb == "requeue":
            call.requeue(self.some_lease(data, None))
        else:
            getattr(call, verb)(data.draw(request_ids))
        self.send(router, call, heard)

    @rule(
        replica=st.sampled_from(REPLICAS),
        more=st.integers(-2, 4),
        late=st.booleans(),
        data=st.data(),
        heard=st.booleans(),
    )
    def report(self, replica: Sender, more: int, late: bool, data: Any, heard: bool) -> None:
        call = Call()
        for verb in data.draw(st.lists(st.sampled_from(["charge", "settle"]), max_size=4)):
            getattr(call, verb)(self.some_lease(data, replica), data.draw(usages))
        self.limits[replica.name] = max(0, self.limits[replica.name] + more)
        self.versions += 1
        version = self.versions - 5 if late else self.versions
        call.offer(f"http://{replica.name}", self.limits[replica.name], 0, version, 64)
        self.send(replica, call, heard)

    @rule(
        replica=st.sampled_from(REPLICAS),
        client=st.sampled_from(CLIENTS),
        counter=st.floats(0, 2000),
        v=st.floats(0, 500),
        data=st.data(),
    )
    def resync(self, replica: Sender, client: str, counter: float, v: float, data: Any) -> None:
        call = Call()
        call.resync_pool(
            PoolState(data.draw(st.sampled_from(POLICIES)), data.draw(st.integers(0, 3)), v)
        )
        lease = self.some_lease(data, replica)
        groups = data.draw(st.sampled_from(GROUPS))
        call.resync_lease(lease, client, data.draw(weights), data.draw(usages), groups)
        if (price := data.draw(st.sampled_from([None, 3, 0.7]))) is not None:
            call.price(lease.rpartition(".")[0], price)
        call.resync_client(client, counter)
        call.resync_client(data.draw(st.sampled_from(["a/", "a/1/"])), counter)
        self.send(replica, call, True)

    @rule(
        neighbour=st.sampled_from(NEIGHBOURS),
        had=st.lists(
            st.tuples(
                st.sampled_from(CLIENTS),
                weights,
                st.floats(-50, 900),
                st.sampled_from([0.0, 70.0, 1e9]),
                st.sampled_from(GROUPS),
            ),
            max_size=4,
        ),
        heard=st.booleans(),
    )
    def serve_elsewhere(self, neighbour: Sender, had: list[Any], heard: bool) -> None:
        call = Call()
        for client, weight, service, debt, groups in had:
            call.served_elsewhere(client, weight, service, debt, groups)
        self.send(neighbour, call, heard)

    @rule(
        sender=st.sampled_from(ROUTERS + REPLICAS + NEIGHBOURS),
        verb=st.sampled_from(["heartbeat", "leave", "ends"]),
    )
    def beat(self, sender: Sender, verb: str) -> None:
        call = Call()
        getattr(call, verb)()
        self.send(sender, call, True)

    @rule(policy=st.sampled_from(POLICIES), reason=st.sampled_from("abc"))
    def set_policy(self, policy: str, reason: str) -> None:
        call = Call()
        call.policy(policy, reason)
        self.send(ROUTERS[0], call, True)

    # --- what goes wrong --------------------------------------------------------------------

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def an_old_call_comes_again(self, data: Any) -> None:
        sender, call = data.draw(st.sampled_from(self.sent[-6:]))
        self.both(sender, call)

    @rule(milliseconds=st.sampled_from([1, 400, 4_000, 6_000, 11_000, 16_000, DAY_MS, 3 * DAY_MS]))
    def time_passes(self, milliseconds: int) -> None:
        self.clock.pass_ms(milliseconds)

    @rule()
    def save(self) -> None:
        keys = self.loop.run_until_complete(self.redis.keys("*"))
        with redis.Redis.from_url(self.url) as raw:
            dumps = {key: raw.dump(key) for key in keys}
        published, self.memory._publish = self.memory._publish, None
        self.saved = (copy.deepcopy(self.memory, {id(self.clock): self.clock}), dumps)
        self.memory._publish = published

    @precondition(lambda self: self.saved is not None)
    @rule()
    def the_store_forgets_what_came_later(self) -> None:
        assert self.saved is not None
        memory, dumps = self.saved
        with redis.Redis.from_url(self.url) as raw:
            raw.flushall()
            for key, dump in dumps.items():
                raw.restore(key, 0, dump)
        publish = self.memory._publish
        self.memory = copy.deepcopy(memory, {id(self.clock): self.clock})
        self.memory._publish = publish

    @rule(sure=st.integers(0, 4))
    def the_store_comes_back_empty(self, sure: int) -> None:
        if sure == 4:
            self.loop.run_until_complete(self.redis.flushall())
            self.memory = self.empty_memory()

    # --- both ---------------------------------------------------------------------------------

    def some_lease(self, data: Any, replica: Sender | None) -> str:
        own = [lease for lease, of in self.leases.items() if replica and of == replica.name]
        return str(data.draw(st.sampled_from((own or list(self.leases))[-8:])))

    def send(self, sender: Sender, call: Call, heard: bool) -> None:
        self.numbers[sender.name] += 1
        call.number, call.acked = self.numbers[sender.name], self.acked[sender.name]
        self.both(sender, call)
        self.sent.append((sender, replace(call, verbs=list(call.verbs))))
        if heard:
            self.acked[sender.name] = call.number

    def both(self, sender: Sender, call: Call) -> None:
        self.published.clear()
        real = self.loop.run_until_complete(self.store.execute(sender, call))
        ours = self.memory.apply(sender, call)
        assert comparable(ours) == comparable(real)
        assert sorted(map(repr, self.published)) == sorted(map(repr, self.heard_published()))
        for grant in (*ours.grants, *self.published):
            self.leases[grant.lease] = grant.replica

    def heard_published(self) -> list[Grant]:
        from fairness.store.redis_store import _grants

        heard: list[Grant] = []
        while len(heard) < len(self.published):
            message = self.listener.get_message(ignore_subscribe_messages=True, timeout=1)
            if message is None:
                break
            import json

            heard.extend(_grants([str(part) for part in json.loads(message["data"])]))
        return heard

    @rule()
    def same_clients(self) -> None:
        real = self.loop.run_until_complete(self.store.clients())
        assert self.memory.clients() == real
        of_groups = self.loop.run_until_complete(self.store.groups())
        assert self.memory.groups() == of_groups
        sizes = self.loop.run_until_complete(self.redis.hmget(f"{PREFIX}pool", ["largest", "most"]))
        assert tuple(float(size or 0) for size in sizes) == self.memory.sizes()
        meters = self.loop.run_until_complete(stored_meters(self.redis))
        ours = telling(self.memory.meters.meters, self.clock)
        assert ours == telling(meters, self.clock)
        if self.settings.classes:
            told = self.loop.run_until_complete(self.redis.hget(f"{PREFIX}pool", "owed")) or ""
            owed = dict(line.split(" ") for line in told.splitlines())
            assert {name: float(due) for name, due in owed.items()} in (
                self.memory._tree.turns.owed,
                {},  # before the first call
            )

    @rule()
    def same_shadow(self) -> None:
        real = self.loop.run_until_complete(self.store.shadow())
        assert self.memory.shadow.report() == real

    @rule()
    def same_usage(self) -> None:
        real = self.loop.run_until_complete(every_day(self.store, self.clock))
        ours = MemoryQueue(self.settings, self.clock)
        ours.pool = self.memory
        assert self.loop.run_until_complete(every_day(ours, self.clock)) == real


def some_terms(seed: int | None, groups: Sequence[Group]) -> Terms | None:
    """Limits for a client and its groups (a class has none); None: for none."""
    if seed is None:
        return None
    levels = 1 + sum(bool(split_class(group.name)[1]) for group in groups)
    limits = (LIMITS[(seed * 3 + level) % len(LIMITS)] for level in range(levels))
    return Terms(tuple(limits), None if seed % 3 else 20, admitted=seed == 7)


async def every_day(queue: GlobalQueue, clock: Clock) -> list[dict[str, Used]]:
    """All usage that is kept."""
    usage = await DailyUsage.open(queue)
    return [await usage.on(day) for day in range(clock() // DAY_MS + 1)]


def comparable(reply: Reply) -> Reply:
    """Without the orders that mean nothing."""
    return replace(reply, voided=tuple(sorted(reply.voided)))


def test_both_stores_say_the_same(server_url: str) -> None:
    machine = type("Histories", (Both,), {"url": server_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60,
            stateful_step_count=60,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize(("policy", "classes"), [("vtc", 0), ("shadow", 2), ("vtc", 2)])
def test_a_long_history_of_one_seed(server_url: str, policy: str, classes: int) -> None:
    """Hypothesis prefers short histories; this one is long and busy."""
    random_ = random.Random(7)
    machine = type("Long", (Both,), {"url": server_url})()
    machine.begin("moving_average", 1.0, ServiceCost(), 300.0, CLASSES[classes])
    machine.set_policy(policy, "a")
    for step in range(3_000):
        sender = random_.choice(ROUTERS + REPLICAS + NEIGHBOURS[:1])
        call = Call()
        for _ in range(random_.randint(1, 6)):
            if sender.kind == "router":
                client = random_.choice(CLIENTS)
                groups = (A, (A1, A2)[len(client) % 2]) if random_.random() < 0.9 else ()
                if classes and len(client) % 2:
                    groups = (LOW, *(g._replace(name=f"{LOW.name}{g.name}") for g in groups))
                terms = some_terms(random_.choice((None, *range(8))), groups)
                name = f"q{step}-{len(call)}"
                call.submit(name, client, 1, 100, groups=groups, terms=terms)
                if len(client) % 3 == 0:
                    call.price(name, 1.7)
                if random_.random() < 0.5:
                    call.explain(name, standing=random_.random() < 0.5)
                if random_.random() < 0.2:
                    call.cancel(f"q{step - random_.randint(1, 9)}-0")
            elif sender.kind == "neighbour":
                call.served_elsewhere(random_.choice(CLIENTS), 1, random_.uniform(-9, 90), 600.0)
            elif machine.leases:
                lease = random_.choice(list(machine.leases)[-40:])
                usage = Usage(random_.randint(0, 90), 0, random_.randint(0, 60))
                random_.choice((call.charge, call.settle))(lease, usage)
        if sender.kind == "replica":
            machine.limits[sender.name] += random_.randint(0, 5)
            machine.versions += 1
            call.offer(sender.name, machine.limits[sender.name], 0, machine.versions, 4096)
        if random_.random() < 0.2:
            call.heartbeat()
        if random_.random() < 0.1:
            call.ends()
        machine.clock.pass_ms(random_.choice((1, 1, 50, 300)))  # nobody falls silent
        if step % 400 == 399:
            machine.same_usage()
            machine.clock.pass_ms(DAY_MS)
        machine.send(sender, call, random_.random() < 0.9)
        if random_.random() < 0.05:
            machine.an_old_call_comes_again(_Draws(random_))
    machine.teardown()


class _Draws:
    """Stands in for hypothesis' data."""

    def __init__(self, random_: random.Random) -> None:
        self._random = random_

    def draw(self, strategy: Any) -> Any:
        return self._random.choice(list(strategy.elements))
