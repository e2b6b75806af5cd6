"""A simulated Fairlane replica: the engine, and the product's parts around it.

The product's: `LeaseBook` (window and settlements), `Ledger` over `VirtualTokenCounters` (charges),
`FairQueue` (order of the batch). Ours: the engine, and when things are said. That follows
`replicas.queue_link`: the engine is asked what it has done when there is news, every
`report_interval_s` at most; the store is called when there is something to say, one call at a time,
with charges every `charge_interval_s`; counters that come back become bases.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from fairness.fair_queue import FairQueue
from fairness.grant_token import GrantToken
from fairness.policy import FCFS, policy
from fairness.store.contract import Call, Grant, Reply, Sender, Usage
from loadtests.simulator.engine import Engine
from loadtests.simulator.hardware import Server
from loadtests.simulator.job import Job
from loadtests.simulator.network import Caller, Network
from loadtests.simulator.settings import FairlaneSettings
from replicas.autoscaling import Work
from replicas.lease_book import EngineCall, Lease, LeaseBook
from replicas.ledger import Identity, Ledger
from replicas.room import RoomEstimate

BEAT_S = 1.0


@dataclass(slots=True)
class _Answer:
    """What was made for one request so far, as `Ledger` asks an engine for it."""

    tokens: int = 0

    def __len__(self) -> int:
        return self.tokens


class Batching:
    """The line inside a replica: what it was granted, in the order of its counters."""

    def __init__(self, settings: FairlaneSettings) -> None:
        order = policy(settings.policy)
        self.ledger = Ledger(settings.cost)
        self.ledger.counters.lifts = order.lifts
        self.queue: FairQueue[Job] = FairQueue(order, self.ledger.counters.counter)
        self.room = RoomEstimate()
        self._in_order_of_arrival = isinstance(order, FCFS)
        self._clients: dict[str, int] = {}  # of those that wait
        self._answers: dict[Job, _Answer] = {}
        self.ended_jobs: list[Job] = []

    def add(self, job: Job, identity: Identity) -> None:
        """A granted request comes."""
        answer = self._answers[job] = _Answer()
        self.ledger.opened(job.id, identity, job.prompt, answer)
        self.queue.push(job.client, job)
        self._clients[job.client] = self._clients.get(job.client, 0) + 1

    def first(self) -> Job | None:
        """See `engine.Line`."""
        return self.queue.peek() if len(self.queue) else None

    def admit(self, job: Job) -> None:
        """See `engine.Line`."""
        self.queue.remove(job)
        self.ledger.admitted(job.id, job.prompt, 0)
        self.room.admitted(job.prompt + job.output)  # what this server reserves
        self._clients[job.client] -= 1
        if not self._clients[job.client]:
            del self._clients[job.client]

    def made(self, jobs: Collection[Job], tokens: int) -> None:
        """See `engine.Line`."""
        for answer in map(self._answers.__getitem__, jobs):
            answer.tokens += tokens
        self.ledger.stepped()

    def ended(self, jobs: Collection[Job], batch: Collection[Job]) -> None:
        """See `engine.Line`."""
        for job in jobs:
            self.ledger.ended(job.id, job.prompt + job.made)
            del self._answers[job]
        self.ended_jobs += jobs

    @property
    def steady(self) -> bool:
        """See `engine.Line`."""
        return self._in_order_of_arrival or len(self._clients) < 2


class Replica:
    """One replica."""

    def __init__(
        self, network: Network, server: Server, settings: FairlaneSettings, number: int
    ) -> None:
        self._network = network
        self._clock = network.clock
        self._settings = settings
        self._longest = server.prefill_tokens
        self._kv_tokens = server.kv_tokens
        self._caller = Caller(network, Sender("replica", f"replica{number}"))
        self._line = Batching(settings)
        self.engine = Engine(network.clock, server, _Noticing(self._line, self))
        self._book = LeaseBook(settings.lookahead, settings.slots)
        self._leases: dict[Job, Lease] = {}
        self._charged: dict[str, float] = {}
        self._leaving: set[str] = set()
        self._said_limit = -1
        self._version = 0
        self._due = False
        self._next_report = 0.0
        self._next_charge = 0.0
        self._timer = False
        self._waited_at: int | None = None  # steps made when the engine last left something waiting
        self._pool_waiting = 0
        self._gone: Callable[[], None] | None = None
        self._empty_beats = 0
        self._beat_due = True
        self._beat()

    @property
    def name(self) -> str:
        """As the queue knows it."""
        return self._caller.sender.name

    @property
    def work(self) -> Work:
        """What it tells the autoscaler (`replicas.server`). What this server reserves is in use."""
        return Work.of(
            waiting=self._pool_waiting,
            running=self._book.open_leases,
            slots=self._settings.slots,
            kv_usage=1.0 - self.engine.batch.free / self._kv_tokens,
        )

    def drain(self, gone: Callable[[], None]) -> None:
        """Take no more grants, end what is open, leave the queue; then say so."""
        self._book.draining = True
        self._gone = gone
        self.wake()

    def accept(self, job: Job, grant: Grant) -> None:
        """A request comes with its grant."""
        token = GrantToken(
            grant.lease, job.client, self.name, 0.0, job.weight, grant.counter, groups=grant.groups
        )
        self._leases[job] = self._book.open(token)
        self.engine.catch_up()
        identity = Identity(job.client, grant.lease, job.weight, grant.counter, grant.groups)
        self._line.add(job, identity)
        self.engine.wake()
        self.wake()
        self._time_charges()

    def wake(self) -> None:
        """There is news for the store."""
        if not self._due and not self._caller.busy:
            self._due = True
            self._clock.at(max(self._clock.now, self._next_report), self._report)

    def stepped(self) -> None:
        """The engine has made steps; that is news if charges are due or it has become pressed."""
        if not self._settings.charge_interval_s or self._is_pressed() != self._book.pressed:
            self.wake()

    def _beat(self) -> None:
        if self._gone is not None and self._is_drained():
            call = Call()
            call.leave()
            self._caller.send(call, lambda reply: None)
            self._gone()
            return
        self._beat_due = True
        self.wake()
        self._clock.after(BEAT_S, self._beat)

    def _is_drained(self) -> bool:
        """Was it empty at two beats since the queue knew that it takes no more? (A grant may have
        been on its way at the first.)"""
        empty = self._said_limit == 0 and not self._book.busy and not self._caller.busy
        self._empty_beats = self._empty_beats + 1 if empty else 0
        return self._empty_beats > 1

    def _time_charges(self) -> None:
        """While anything runs, report charges now and then. (Exactly: whenever some were made.)"""
        if not self._timer and self._settings.charge_interval_s > 0:
            self._timer = True
            self._clock.after(self._settings.charge_interval_s, self._charge_time)

    def _charge_time(self) -> None:
        self._timer = False
        if self._book.busy:
            self.wake()
            self._time_charges()

    def _exchange(self) -> None:
        """Ask the engine what it has done (`QueueLink._exchange_with_engine`)."""
        self.engine.catch_up()
        leaving = self._leaving.union(self._book.take_departed())
        rows, charged = self._line.ledger.report()
        self._line.ledger.forget(leaving)
        for client in leaving:
            self._charged.pop(client, None)
        self._leaving = leaving & charged.keys()
        self._charged.update(charged)
        self._book.pressed = self._is_pressed()
        self._book.fits = self._line.room.fits(self.engine.batch.free)
        self._book.update(map(tuple, rows))
        for job in self._line.ended_jobs:
            self._close(job)
        self._line.ended_jobs.clear()

    def _is_pressed(self) -> bool:
        """Has it left requests waiting at two looks with a step between?"""
        steps = self.engine.batch.steps
        if not len(self._line.queue):
            self._waited_at = None
            return False
        if self._waited_at is None:
            self._waited_at = steps
        return steps > self._waited_at

    def _close(self, job: Job) -> None:
        lease = self._leases.pop(job)
        complete = job.made == job.output
        lease.calls.append(EngineCall(job.prompt, 0, {0: job.made}, complete))
        self._book.close(lease)

    def _report(self) -> None:
        self._due = False
        self._exchange()
        now, book, settings, call = self._clock.now, self._book, self._settings, Call()
        if self._beat_due:
            call.heartbeat()
            self._beat_due = False
        charging = book.busy and now >= self._next_charge
        settlements = book.settlements()
        limit = book.limit
        if not (call or charging or settlements or limit != self._said_limit):
            return
        self._version += 1
        call.offer(self.name, limit, book.arrived, self._version, self._longest)
        marks: dict[str, float] = {}
        if charging:
            self._next_charge = now + settings.charge_interval_s
            marks = dict(self._charged)
            for lease, usage in book.take_charges():
                call.charge(lease, usage)
        for lease, usage in settlements:
            call.settle(lease, usage)
        self._next_report = now + settings.report_interval_s

        def heed(reply: Reply) -> None:
            self._said_limit = limit
            self._heed(reply, marks, settlements)

        self._caller.send(call, heed)

    def _heed(
        self, reply: Reply, marks: dict[str, float], settlements: list[tuple[str, Usage]]
    ) -> None:
        self._book.confirm(settlements)
        if reply.pool is not None:
            self._pool_waiting = reply.pool.waiting
        bases = {
            client: counter - marks[client]
            for client, counter in reply.counters.items()
            if client in marks
        }
        if bases:
            self.engine.catch_up()
            self._line.ledger.set_bases(bases)
            for client in bases:
                self._line.queue.reorder(client)
            self.engine.wake()
        if (
            self._line.ended_jobs
            or self._book.settlements(1)
            or self._book.limit != self._said_limit
        ):
            self.wake()


class _Noticing:
    """The replica's line, which tells the link when the engine has news for it."""

    def __init__(self, line: Batching, replica: Replica) -> None:
        self._line = line
        self._replica = replica
        self.first = line.first

    def admit(self, job: Job) -> None:
        """See `engine.Line`."""
        self._line.admit(job)
        self._replica.wake()

    def made(self, jobs: Collection[Job], tokens: int) -> None:
        """See `engine.Line`."""
        self._line.made(jobs, tokens)
        self._replica.stepped()

    def ended(self, jobs: Collection[Job], batch: Collection[Job]) -> None:
        """See `engine.Line`."""
        self._line.ended(jobs, batch)
        self._replica.wake()

    @property
    def steady(self) -> bool:
        """See `engine.Line`."""
        return self._line.steady
