"""A small cluster on a virtual clock: routers, replicas and the real global queue between them.

What is real: `MemoryPool` (the global queue), `FairQueue` and `VirtualTokenCounters` (the order in
a replica's batch). What is modelled, as simply as can be: messages take `delay_s`; an engine makes
one token per running request and step; a step takes `step_s`, plus what the prompts admitted in it
cost; a request reserves memory for all its tokens when it is admitted; the link of a replica keeps
the window of `replicas.lease_book` and the bases of `replicas.queue_link`, one call at a time.
Calls are neither lost nor repeated here.

Service counts as delivered when it is charged in the batch: the prompt at the admission, an output
token at the end of its step.
"""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from fairness.counters import VirtualTokenCounters
from fairness.fair_queue import FairQueue
from fairness.groups import Group
from fairness.policy import policy
from fairness.store.contract import Call, Grant, QueueSettings, Reply, Sender, Usage
from fairness.store.memory_store import MemoryPool
from replicas.room import RoomEstimate
from tests.unit.fairness.witness import Witness

BEAT_S = 1.0


class Events:
    """What happens when. Times are seconds since the start."""

    def __init__(self) -> None:
        self.now = 0.0
        self._numbers = itertools.count()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []

    def after(self, delay: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + delay, next(self._numbers), act))

    def run(self, until: float, after_each: Callable[[], None]) -> None:
        while self._heap and self._heap[0][0] <= until:
            self.now, _, act = heapq.heappop(self._heap)
            act()
            after_each()
        self.now = until


@dataclass(frozen=True)
class Shape:
    """A pool. report_s: between two calls of a replica; charge_s: between two with charges.

    fills: how a replica with free slots takes more than its lookahead, while nothing waits there:
    "at once" as many as there are slots, "doubling" as many as run, "by lookahead" no more.
    Filled by doubling, it also takes no more than its memory is likely to hold, and one.
    """

    replicas: int = 1
    routers: int = 1
    slots: int = 4
    lookahead: int = 2
    memory: float = 1e9
    fills: str = "doubling"
    step_s: float = 0.02
    prefill_s: float = 0.0002  # a token
    delay_s: float = 0.002
    report_s: float = 0.01
    charge_s: float = 0.1
    longest: int = 10_000  # prompt that the engines take
    order: str = "vtc"


@dataclass(eq=False)
class Request:
    id: str
    client: str
    weight: float
    input: int
    output: int
    bytes: int
    asked: float
    router: "Router"
    groups: tuple[Group, ...] = ()
    over: Callable[["Request"], None] = lambda request: None
    grant: Grant | None = None
    got: Usage = Usage()  # noqa: RUF009 (a frozen value)
    outcome: str = ""  # "done", "left" or "failed"


class Cluster:
    """Everything, and the ways between."""

    def __init__(
        self,
        shape: Shape,
        settings: QueueSettings,
        witness: Witness,
        events: Events | None = None,
    ) -> None:
        """events: a clock that is shared with other clusters."""
        self.shape, self.witness, self.settings = shape, witness, settings
        self.events = events or Events()
        self.pool = MemoryPool(settings, lambda: round(self.events.now * 1000), self._publish)
        if shape.order != "vtc":
            order = Call()
            order.policy(shape.order, "the scenario says so")
            self.pool.apply(Sender("router", "router0"), order)
        self.requests: dict[str, Request] = {}
        self.routers = [Router(self, n) for n in range(shape.routers)]
        self.replicas = {f"replica{n}": Replica(self, n) for n in range(shape.replicas)}

    def later(self, act: Callable[[], None]) -> None:
        """Send a message."""
        self.events.after(self.shape.delay_s, act)

    def call(self, sender: Sender, call: Call, heed: Callable[[Reply], None]) -> None:
        """One round trip to the global queue."""

        def apply() -> None:
            for verb, *arguments in call.verbs:
                if verb == "submit" and not self.requests[arguments[0]].outcome:
                    self.witness.waits(arguments[0], arguments[1])
                elif verb == "cancel":
                    self.witness.waits_no_more(arguments[0])
                elif verb == "requeue":
                    request = arguments[0].rpartition(".")[0]
                    self.witness.waits(request, self.requests[request].client)
            reply = self.pool.apply(sender, call)
            for grant in reply.grants:
                self.witness.waits_no_more(grant.request)
            self.later(lambda: heed(reply))

        self.later(apply)

    def _publish(self, name: str, grants: tuple[Grant, ...]) -> None:
        router = next(router for router in self.routers if router.sender.name == name)
        for grant in grants:
            self.witness.waits_no_more(grant.request)
        self.later(lambda: router.heed_grants(grants))

    def send(self, request: Request) -> None:
        self.requests[request.id] = request
        request.router.submit(request)

    def run(self, until: float) -> None:
        self.events.run(until, self.look)

    def look(self) -> None:
        for replica in self.replicas.values():
            self.witness.sees(replica.sender.name, replica.starves, self.events.now)


class Router:
    def __init__(self, cluster: Cluster, number: int) -> None:
        self.cluster, self.alive = cluster, True
        self.sender = Sender("router", f"router{number}")
        self._mine: dict[str, Request] = {}
        self._beat()

    def submit(self, request: Request) -> None:
        self._mine[request.id] = request
        call = Call()
        call.submit(
            request.id, request.client, request.weight, request.bytes, groups=request.groups
        )
        self.cluster.call(self.sender, call, self._heed)

    def leave(self, request: Request) -> None:
        """The client goes away."""
        if self._mine.pop(request.id, None) is None:
            return
        request.outcome = "left"
        if request.grant is None:
            call = Call()
            call.cancel(request.id)
            self.cluster.call(self.sender, call, self._heed)
        else:
            self._abort(request)
        request.over(request)

    def heed_grants(self, grants: tuple[Grant, ...]) -> None:
        for grant in grants if self.alive else ():
            request = self._mine.get(grant.request)
            if request is not None and request.grant is None:
                request.grant = grant
                replica = self.cluster.replicas[grant.replica]
                self.cluster.later(lambda r=replica, q=request, g=grant: r.accept(q, g))

    def finished(self, request: Request) -> None:
        if self._mine.pop(request.id, None) is not None:
            request.outcome = "done"
            request.over(request)

    def refused(self, request: Request, grant: Grant) -> None:
        """The replica died: before the first token another gets it."""
        if request.id not in self._mine or request.grant is not grant or not self.alive:
            return
        if request.got.output:
            del self._mine[request.id]
            request.outcome = "failed"
            request.over(request)
            return
        request.grant = None
        call = Call()
        call.requeue(grant.lease)
        self.cluster.call(self.sender, call, self._heed)

    def die(self) -> None:
        self.alive = False
        for request in self._mine.values():
            request.outcome = "failed"
            self.cluster.witness.waits_no_more(request.id)
            if request.grant is not None:
                self._abort(request)
            self.cluster.later(lambda r=request: r.over(r))
        self._mine.clear()

    def _abort(self, request: Request) -> None:
        assert request.grant is not None
        replica, lease = self.cluster.replicas[request.grant.replica], request.grant.lease
        self.cluster.later(lambda: replica.abort(lease))

    def _heed(self, reply: Reply) -> None:
        self.heed_grants(reply.grants)

    def _beat(self) -> None:
        if self.alive:
            call = Call()
            call.heartbeat()
            self.cluster.call(self.sender, call, self._heed)
            self.cluster.events.after(BEAT_S, self._beat)


@dataclass(eq=False)
class Lease:
    request: Request
    grant: Grant
    used: Usage = Usage()  # noqa: RUF009 (a frozen value)
    told: Usage | None = None
    started: bool = False
    aborted: bool = False


@dataclass
class Replica:
    cluster: Cluster
    number: int
    alive: bool = True
    _open: dict[str, Lease] = field(default_factory=dict)
    _running: list[Lease] = field(default_factory=list)
    _settled: dict[str, Usage] = field(default_factory=dict)
    _waiting: Counter[str] = field(default_factory=Counter)
    _live: Counter[str] = field(default_factory=Counter)
    _changed: set[str] = field(default_factory=set)
    _arrived: int = 0
    _unstarted: int = 0
    _memory: float = 0.0
    _stepping: bool = False
    _waited: bool = False
    _pressed: bool = False
    _due: bool = False
    _calling: bool = False
    _next_call: float = 0.0
    _next_charge: float = 0.0
    _next_beat: float = 0.0
    _said: int = -1
    _version: int = 0

    def __post_init__(self) -> None:
        self.sender = Sender("replica", f"replica{self.number}")
        self.counters = VirtualTokenCounters()
        self._room = RoomEstimate()
        order = policy(self.cluster.shape.order)
        self.queue: FairQueue[str] = FairQueue(
            order, self.counters.counter, group_of=self.counters.group_of
        )
        self._beat()

    @property
    def starves(self) -> bool:
        """Has it a free slot and nothing to fill it with?"""
        return self.alive and len(self._running) < self.cluster.shape.slots and not self.queue

    # --- the batch --------------------------------------------------------------------------

    def accept(self, request: Request, grant: Grant) -> None:
        """A granted request arrives."""
        if not self.alive:
            self.cluster.later(lambda: request.router.refused(request, grant))
            return
        self._arrived += 1
        self._unstarted += 1
        self._open[grant.lease] = Lease(request, grant)
        self._live[request.client] += 1
        self._waiting[request.client] += 1
        self.counters.join(request.client, request.weight, grant.counter, grant.groups)
        self.queue.push(request.client, grant.lease)
        if not self._stepping:
            self._begin_step()
        self._wake()

    def abort(self, name: str) -> None:
        lease = self._open.get(name)
        if lease is None or not self.alive:
            return
        lease.aborted = True
        if self.queue.remove(name):
            self._stop_waiting(lease)
            self._end(lease)
            self._wake()

    def die(self) -> None:
        self.alive = False
        for lease in self._open.values():
            request, grant = lease.request, lease.grant
            if lease.started and not lease.used.output:
                self._deliver(request, -lease.used.input, 0)  # nobody saw anything of it
            self.cluster.later(lambda r=request, g=grant: r.router.refused(r, g))

    def _begin_step(self) -> None:
        shape, prefilled = self.cluster.shape, 0
        while self.queue and len(self._running) < shape.slots:
            lease = self._open[self.queue.peek()]
            size = lease.request.input + lease.request.output
            if self._memory + size > shape.memory:
                break
            self.queue.pop()
            self._stop_waiting(lease)
            self._memory += size
            self._room.admitted(size)
            lease.started = True
            self._running.append(lease)
            prefilled += lease.request.input
            self._give(lease, lease.request.input, 0)
        self._stepping = bool(self._running)
        if self._stepping:
            duration = shape.step_s + shape.prefill_s * prefilled
            self.cluster.events.after(duration, self._end_step)

    def _end_step(self) -> None:
        if not self.alive:
            return
        for lease in list(self._running):
            self._give(lease, 0, 1)
            if lease.aborted or lease.used.output == lease.request.output:
                self._running.remove(lease)
                self._memory -= lease.request.input + lease.request.output
                self._end(lease)
        waits = bool(self.queue)
        self._pressed, self._waited = waits and self._waited, waits
        self._begin_step()
        self._wake()

    def _give(self, lease: Lease, tokens_in: int, tokens_out: int) -> None:
        lease.used += Usage(tokens_in, 0, tokens_out)
        self._changed.add(lease.grant.lease)
        self.counters.charge(
            lease.request.client, self.cluster.settings.cost.of(tokens_in, tokens_out)
        )
        self._deliver(lease.request, tokens_in, tokens_out)

    def _deliver(self, request: Request, tokens_in: int, tokens_out: int) -> None:
        request.got += Usage(tokens_in, 0, tokens_out)
        service = self.cluster.settings.cost.of(tokens_in, tokens_out)
        self.cluster.witness.delivered(request.client, service, self.cluster.events.now)

    def _stop_waiting(self, lease: Lease) -> None:
        client = lease.request.client
        self._unstarted -= 1
        self._waiting[client] -= 1
        if not self._waiting[client]:
            self.counters.leave(client)

    def _end(self, lease: Lease) -> None:
        name, request = lease.grant.lease, lease.request
        del self._open[name]
        self._changed.discard(name)
        self._settled[name] = lease.used
        self._live[request.client] -= 1
        self.cluster.later(lambda: request.router.finished(request))

    # --- the link ---------------------------------------------------------------------------

    @property
    def _limit(self) -> int:
        shape = self.cluster.shape
        most = {
            "at once": shape.slots + shape.lookahead,
            "doubling": max(1, shape.lookahead, len(self._running)),
            "by lookahead": max(1, shape.lookahead),
        }[shape.fills]
        ahead = (shape.lookahead if self._pressed else most) - self._unstarted
        room = min(shape.slots + shape.lookahead - len(self._open), ahead)
        fits = self._room.fits(shape.memory - self._memory)
        if fits is not None and shape.fills == "doubling":
            room = min(room, fits + 1 - self._unstarted)
        return self._arrived + max(0, room)

    def _wake(self) -> None:
        if self.alive and not self._due and not self._calling:
            self._due = True
            wait = max(0.0, self._next_call - self.cluster.events.now)
            self.cluster.events.after(wait, self._report)

    def _beat(self) -> None:
        if self.alive:
            self._wake()
            self.cluster.events.after(BEAT_S, self._beat)

    def _report(self) -> None:
        self._due = False
        if not self.alive:
            return
        now, shape, call = self.cluster.events.now, self.cluster.shape, Call()
        if now >= self._next_beat:
            call.heartbeat()
            self._next_beat = now + BEAT_S
        charging = bool(self._open) and now >= self._next_charge
        if charging:
            for name in sorted(self._changed):
                call.charge(name, self._open[name].used)
            self._changed.clear()
            self._next_charge = now + shape.charge_s
        settled, limit = dict(self._settled), self._limit
        for name, used in settled.items():
            call.settle(name, used)
        if not call and limit == self._said:
            return
        self._version += 1
        call.offer(self.sender.name, limit, self._arrived, self._version, shape.longest)
        live = {n for c in self._live for n in (c, *self.counters.groups_of(c))}
        marks = {n: self.counters.charged(n) for n in live} if charging else {}
        self._calling, self._next_call = True, now + shape.report_s

        def heed(reply: Reply) -> None:
            self._calling, self._said = False, limit
            for name in settled:
                self._settled.pop(name, None)
            for name in reply.voided:
                if name not in self._settled and name not in self._open:
                    self._arrived += 1
                    self._settled[name] = Usage()
            for node, counter in reply.counters.items():
                if node in marks and node in self.counters:
                    self.counters.set_base(node, counter - marks[node])
                    self.queue.reorder(node)
            for client in [c for c, leases in self._live.items() if not leases]:
                del self._live[client]
                self.counters.forget(client)
            if self._settled or self._limit != self._said:
                self._wake()

        self.cluster.call(self.sender, call, heed)
