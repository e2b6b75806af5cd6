"""The global queue in one process's memory: for tests, the simulator and the degraded mode.

It does what the scripts in `lua/` do, verb by verb and in the same order, so that the same history
gives the same grants (a test drives both). `MemoryPool` is the state and is pure: it is told the
time and hands grants for others to `publish`. `MemoryQueue` makes a `GlobalQueue` of it.

A client that neither waits nor runs and is not above the start of newcomers is unknown, as in
lua/moves.lua.

Cost of a verb: O(log clients) or O(log waiting), amortised; nothing is O(clients) but `clients`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from fairness.classes import outermost_of, split_class
from fairness.groups import ROOT, Group
from fairness.limits import Rates, Refusal, parse_terms
from fairness.lowest_first import LowestFirst
from fairness.prediction import PoolAverage
from fairness.store.contract import (
    Argument,
    Call,
    CallRefusedError,
    ClientState,
    Grant,
    GroupState,
    PoolState,
    QueueSettings,
    ReplicaState,
    Reply,
    Sender,
    Usage,
)
from fairness.store.explain import AHEAD_NAMED, Choice, End, Place, Standing
from fairness.store.memory_limits import Held, Level, Meters
from fairness.store.memory_tree import Client, GroupNode, Tree
from fairness.store.memory_usage import UsageByDay
from fairness.store.shadow import ShadowBook, ShadowReport
from fairness.store.usage import DAY_MS, LastDays, Used

LEARNING_RATE = 0.05  # as in lua/settle.lua
FIRST_TOKENS_PER_BYTE = 0.25
SWEEP_LIMIT = 100
SWEEP_SENDERS = 4
ENDS_KEPT, ENDS_LIMIT = 5000, 500  # as in lua/explain.lua, lua/ends.lua
HOUR_MS = 3_600_000  # what is kept of a replica that was swept, and of a neighbour

Publish = Callable[[str, tuple[Grant, ...]], None]


@dataclass(slots=True)
class _Request:
    id: str
    client: str
    router: str
    weight: float
    bytes: int
    seq: int
    attempt: int
    priority: int
    queued: int
    replica: str | None = None
    used: Usage = Usage()  # noqa: RUF009 (a frozen value)
    charged: float = 0.0
    reserved: float = 0.0
    arrived: bool = False
    explained: bool = False
    choice: tuple[int, int, str] = (0, 0, "")  # of the grant being made
    turn: str = ""  # whose it was under VTC, of that grant under `shadow`
    held: Held | None = None
    price: float = 1.0

    @property
    def lease(self) -> str:
        return f"{self.id}.{self.attempt}"


@dataclass(slots=True)
class _Replica:
    url: str = ""
    limit: int = 0
    granted: int = 0
    version: int = -1
    credits: int = 0


@dataclass(slots=True)
class _Heard:
    """What a store knows of a sender's calls (lua/session.lua)."""

    number: int = 0
    lost: int = 0


@dataclass(slots=True)
class _Answer:
    """The reply of the call being applied."""

    sender: Sender
    now: int
    today: int = 0
    numbered: bool = False
    repeated: bool = False
    lost: bool = False
    grants: list[Grant] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    counters: dict[str, None] = field(default_factory=dict)  # a set that keeps its order
    unknown: list[str] = field(default_factory=list)
    pool: PoolState | None = None
    refused: dict[str, Refusal] = field(default_factory=dict)
    rates: dict[str, Rates] = field(default_factory=dict)
    published: dict[str, list[Grant]] = field(default_factory=dict)
    stand_asked: list[str] = field(default_factory=list)
    ends: tuple[End, ...] = ()
    ended: list[tuple[str, End]] = field(default_factory=list)  # router, what it will be told


def _split(lease: str) -> tuple[str, int]:
    request, _, attempt = lease.rpartition(".")
    return request, int(attempt)


def _largest(one: Usage, other: Usage) -> Usage:
    if one.input >= other.input and one.cached >= other.cached and one.output >= other.output:
        return one  # as it nearly always is: totals grow
    return Usage(
        max(one.input, other.input),
        max(one.cached, other.cached),
        max(one.output, other.output),
    )


class MemoryPool:
    """One pool's state. `apply` is the whole interface; see `fairness.store.contract`."""

    def __init__(
        self,
        settings: QueueSettings,
        now_ms: Callable[[], int],
        publish: Publish = lambda router, grants: None,
    ) -> None:
        """now_ms: the time in milliseconds. publish: grants for a router that did not call."""
        self._settings = settings
        self._cost_of = settings.cost.of
        self._now_ms = now_ms
        self._publish = publish
        self._seq = 0
        self._tokens_per_byte = FIRST_TOKENS_PER_BYTE
        self._policy = "vtc"
        self._policy_version = 0
        self._output_average = PoolAverage()
        self._longest: int | None = None
        self._swept: int | None = None
        self._reasons: set[str] = set()
        self._requests: dict[str, _Request] = {}
        self._tree = Tree(settings.burst, settings.classes)
        self.meters = Meters()
        self.shadow = ShadowBook()
        self.usage = UsageByDay(settings.usage_retention_days)
        self._lines: dict[str, LowestFirst[str, tuple[int, int]]] = {}
        self._arrivals = LowestFirst(self._seq_of)
        self._heard: dict[str, dict[str, int]] = {"router": {}, "replica": {}, "neighbour": {}}
        self._calls: dict[str, _Heard] = {}
        self._routed: dict[str, set[str]] = {}
        self._replicas: dict[str, _Replica] = {}
        self._leases: dict[str, set[str]] = {}
        self._leased: dict[str, _Request] = {}  # by lease
        self._load = LowestFirst(self._load_of)
        self._unseen: dict[str, int] = {}
        self._settled: dict[str, set[str]] = {}
        self._voids: dict[str, dict[str, tuple[float, float, str] | None]] = {}
        self._gone: dict[str, int] = {}  # replica: when it was swept
        self._swept_leases: dict[str, dict[str, Usage]] = {}  # replica: lease: settled with
        self._ends: dict[str, list[End]] = {}
        self._verbs: dict[Argument, Callable[..., None]] = {
            name.removeprefix("_do_"): getattr(self, name)
            for name in dir(self)
            if name.startswith("_do_")
        }
        self._orders = {
            "vtc": self._next_by_counter,
            "lcf": self._next_by_counter,
            "fcfs": self._next_by_arrival,
            "shadow": self._next_by_arrival,
        }
        self._placements = {"least_loaded": self._least_loaded}
        self._now = _Answer(Sender("router", ""), 0)

    def apply(self, sender: Sender, call: Call) -> Reply:
        """Apply a call and return what it returned. Raises CallRefusedError."""
        time = self._now_ms()
        now = self._now = _Answer(sender, time, time // DAY_MS)
        self.usage.begin(now.today)
        self._hear(call)
        for verb in call.verbs:
            try:
                do = self._verbs[verb[0]]
            except KeyError:
                raise CallRefusedError(f"unknown verb {verb[0]!r}") from None
            do(*verb[1:])
        self._grant_all()
        self._keep_ends()
        reply = Reply(
            grants=tuple(now.grants),
            gone=tuple(now.gone),
            counters={
                node.name: self._tree.counter(node)
                for name in now.counters
                for node in self._tree.with_groups(self._tree.client(name))
            },
            voided=tuple(self._voids.get(sender.name, ())) if sender.kind == "replica" else (),
            unknown=tuple(now.unknown),
            lost=now.lost,
            pool=now.pool,
            standings={
                entry.id: self._standing(entry)
                for entry in map(self._requests.get, now.stand_asked)
                if entry is not None and entry.replica is None
            },
            ends=now.ends,
            refused=now.refused,
            rates=now.rates,
        )
        for router, grants in now.published.items():
            self._publish(router, tuple(grants))
        return reply

    def clients(self) -> list[ClientState]:
        """Every client heard of, by name. O(clients)."""
        return [
            ClientState(
                name,
                self._tree.counter(client),
                client.waiting,
                client.running,
                client.input,
                client.cached,
                client.output,
                client.service,
                client.parent,
            )
            for name, client in sorted(self._tree.clients.items())
        ]

    def groups(self) -> list[GroupState]:
        """Every group heard of, by name. O(groups)."""
        return [
            GroupState(
                name,
                group.weight,
                self._tree.counter(group),
                group.waiting,
                group.running,
                self._tree.turns.owed.get(name),
            )
            for name, group in sorted(self._tree.groups.items())
            if name != ROOT
        ]

    def sizes(self) -> tuple[float, int]:
        """The largest charge of one lease, by weight; the most leases that one node held."""
        return self._tree.largest, self._tree.most

    def leftovers(self) -> dict[str, int]:
        """How much is kept of requests that have not ended; all zero when the pool is idle."""
        return {
            "requests": len(self._requests),
            "lines": len(self._lines),
            "arrivals": len(self._arrivals),
            "leases": sum(map(len, self._leases.values())),
            "routed": sum(map(len, self._routed.values())),
            "unseen": len(self._unseen),
            "void": sum(map(len, self._voids.values())),
            "running": sum(client.running for client in self._tree.clients.values()),
            "groups": sum(group.waiting + group.running for group in self._tree.groups.values()),
            "meters": sum(
                meter.in_flight + meter.queued + meter.bytes
                for meter in self.meters.meters.values()
            ),
        }

    # --- whose call it is (session.lua) -----------------------------------------------------

    def _hear(self, call: Call) -> None:
        now = self._now
        now.numbered = call.number > 0
        if now.numbered:
            heard = self._calls.setdefault(now.sender.name, _Heard())
            now.repeated = call.number <= heard.number
            if heard.number <= call.acked:
                self._settled.pop(now.sender.name, None)  # it has heard of all of them
            if heard.number < call.acked:
                heard.lost = call.number
            elif call.acked >= heard.lost:
                heard.lost = 0
            now.lost = heard.lost > 0
            heard.number = max(heard.number, call.number)
        self._heard[now.sender.kind][now.sender.name] = now.now

    # --- verbs, one method each, named as in the contract -----------------------------------

    def _do_submit(
        self,
        request: str,
        client: str,
        weight: float,
        body_bytes: int,
        *rest: Argument,
    ) -> None:
        if self._now.repeated or request in self._requests:
            return
        known = self._tree.client(client)
        attempt, priority, *groups = rest
        self._tree.join_groups(known, groups)
        router = self._now.sender.name
        entry = self._new_request(request, client, router, float(weight), int(body_bytes))
        entry.attempt, entry.priority = int(attempt), int(priority)
        self._stand_in_line(known, entry, returning=True)

    def _do_submit_limited(
        self, terms: str, request: str, client: str, weight: float, body_bytes: int, *rest: Argument
    ) -> None:
        if self._now.repeated or request in self._requests:
            return
        now, size = self._now.now, int(body_bytes)
        max_output, admitted, limits = parse_terms(terms)
        within = (split_class(str(group))[1] for group in rest[3::2])
        nodes = (client, *(group for group in within if group))
        levels: list[Level] = [level for level in zip(nodes, limits, strict=True) if any(level[1])]
        tokens = self._expected_tokens(size, max_output)
        refusal = None if admitted else self.meters.refusal(levels, tokens, size, now)
        if refusal is not None and refusal.name.startswith("queued") and len(self._load):
            self._grant_all()  # they wait for nothing but the end of this call
            refusal = self.meters.refusal(levels, tokens, size, now)
        if refusal is not None:
            self._now.refused[request] = refusal
        else:
            self._do_submit(request, client, weight, body_bytes, *rest)
            entry = self._requests[request]
            entry.held = self.meters.reserve(levels, tokens, now)
            self.meters.queue(entry.held, 1, size, now)
        self._now.rates[request] = self.meters.rates(levels, now)

    def _do_price(self, request: str, price: float) -> None:
        entry = self._requests.get(request)
        if entry is not None and entry.price != price:
            entry.charged = entry.charged * price / entry.price  # what a resync takes to be charged
            entry.price = price

    def _do_ended(self, request: str) -> None:
        entry = self._requests.get(request)
        if entry is not None and entry.held is not None:
            self.meters.end_flight(entry.held, self._now.now)

    def _do_cancel(self, request: str) -> None:
        entry = self._requests.get(request)
        if entry is None:
            return
        if entry.replica is None:
            self._dequeue(entry)
            self._forget(entry, Usage())
        elif not entry.arrived:
            self._take_back(entry)

    def _do_requeue(self, lease: str) -> None:
        entry = self._leased.get(lease)
        if entry is None:
            request, _ = _split(lease)
            if request not in self._requests:
                self._now.gone.append(request)
            return
        assert entry.replica is not None
        self._load.discard(entry.replica)  # until it offers again
        self._refund(entry)
        self._void(entry, None)
        self._release(entry)
        entry.replica, entry.arrived = None, False
        entry.used, entry.charged, entry.reserved = Usage(), 0.0, 0.0
        entry.router = self._now.sender.name
        self._stand_in_line(self._tree.client(entry.client), entry, returning=False)

    def _do_reconcile(self, request: str) -> None:
        entry = self._requests.get(request)
        if entry is None:
            self._now.gone.append(request)
        elif entry.replica is not None:
            self._now.grants.append(self._describe(entry))

    def _do_explain(self, request: str, standing: int) -> None:
        entry = self._requests.get(request)
        if entry is not None:
            entry.explained = True
            if standing:
                self._now.stand_asked.append(request)

    def _do_ends(self) -> None:
        ends = self._ends.pop(self._now.sender.name, [])
        self._now.ends = tuple(ends[:ENDS_LIMIT])
        if len(ends) > ENDS_LIMIT:
            self._ends[self._now.sender.name] = ends[ENDS_LIMIT:]

    def _do_offer(self, url: str, limit: int, arrived: int, version: int, longest: int) -> None:
        name = self._now.sender.name
        replica = self._replicas.get(name, _Replica())
        if version <= replica.version:
            return
        self._replicas[name] = replica
        replica.url, replica.limit, replica.version = url, limit, version
        replica.granted = max(replica.granted, arrived)
        self._longest = longest
        self._set_credits(name, limit - replica.granted)

    def _do_charge(self, lease: str, *tokens: int) -> None:
        entry = self._held(lease)
        if entry is None:
            return
        if not entry.arrived:
            entry.arrived = True
            self._see(entry)
        usage = _largest(Usage(*tokens), entry.used)
        if usage.input > 0 or usage.output > 0:
            self._set_charge(entry, usage, self._service_reserved(entry, usage))
        self._now.counters[entry.client] = None

    def _do_settle(self, lease: str, *tokens: int) -> None:
        usage = Usage(*tokens)
        voids = self._voids.get(self._now.sender.name, {})
        if lease in voids:
            self._confirm(voids.pop(lease), usage)
            return
        entry = self._held(lease)
        if entry is None:
            return
        self._settle(entry, usage)
        if self._now.numbered:
            self._settled.setdefault(self._now.sender.name, set()).add(lease)
        if usage.input > 0 and entry.bytes > 0:
            rate = self._tokens_per_byte
            truth = min(1, usage.input / entry.bytes)
            self._tokens_per_byte = rate + LEARNING_RATE * (truth - rate)
        if usage.output > 0:
            self._output_average = self._output_average.after(usage.output)
            self._remember_output(self._tree.client(entry.client), usage.output)

    def _do_served_elsewhere(
        self, name: str, weight: float, service: float, debt: float, *groups: Argument
    ) -> None:
        if self._now.repeated or service == 0:
            return
        client = self._tree.client(name)
        if not client.waiting and not client.running:
            self._tree.join_groups(client, groups)
        self._tree.add_service_elsewhere(client, service, weight, debt)

    def _do_policy(self, name: str, reason: str) -> None:
        if reason not in self._reasons:
            self._reasons.add(reason)
            if name == "shadow" != self._policy:
                self.shadow.begin(self._now.now)
            self._set_policy(name, self._policy_version + 1)

    def _do_pool(self) -> None:
        now = self._now
        alive = {
            name: ReplicaState(self._replicas[name].url, self._replicas[name].limit > 0)
            for name, heard in self._heard["replica"].items()
            if heard >= now.now - self._settings.sender_ttl_ms and name in self._replicas
        }
        self._tree.servers = len(alive)
        level = self._tree.level(self._tree.root)
        waiting = len(self._arrivals)
        now.pool = PoolState(self._policy, self._policy_version, level, alive, waiting)

    def _do_leave(self) -> None:
        self._heard[self._now.sender.kind][self._now.sender.name] = 0

    def _do_resync_pool(self, virtual_time: float, policy: str, version: int) -> None:
        if version > self._policy_version:
            self._set_policy(policy, version)
        self._tree.raise_virtual_time(virtual_time)

    def _do_resync_client(self, name: str, counter: float) -> None:
        node = self._tree.node(name)
        self._tree.begin(node)
        self._tree.set_counter(node, max(counter, node.counter))

    def _do_resync_lease(self, lease: str, client: str, weight: float, *rest: Argument) -> None:
        told, groups = Usage(*map(int, rest[:3])), rest[3:]
        sender = self._now.sender.name
        request, attempt = _split(lease)
        entry = self._requests.get(request)
        waits = entry is not None and entry.replica is None
        swept = self._swept_leases.get(sender, {}).get(lease, Usage())
        if entry is not None and not (entry.replica == sender and entry.attempt == attempt):
            over = entry.attempt == attempt and (waits or entry.arrived)
            if entry.attempt > attempt or over:
                return
            if not waits:
                self._refund(entry)
                self._void(entry, None)
                self._release(entry)
                entry.replica = None
        if entry is None:
            if self._now.repeated or lease in self._settled.get(sender, ()):
                return  # it has ended since
            known = self._tree.client(client)
            if not known.waiting:
                self._tree.join_groups(known, groups)
            entry = self._new_request(request, client, "", weight, 0)
            self._tree.begin(known)
            self._count_request(known, swept, -1)
        if entry.replica is None:
            self._hold(entry, sender, attempt, 0.0, 0.0)
            if waits:
                self._dequeue(entry)
        self._voids.get(sender, {}).pop(lease, None)
        self._see(entry)
        entry.arrived = True
        entry.used = _largest(_largest(told, swept), entry.used)
        entry.charged = self._service_reserved(entry, entry.used)

    def _do_sweep(self) -> None:
        self._forgive_absence()
        self.usage.forget_old(self._now.today)
        self.meters.tidy(self._now.now)
        ttl_ms = self._settings.sender_ttl_ms
        for since, end, kept_ms in (
            (self._heard["replica"], self._sweep_replica, ttl_ms),
            (self._heard["router"], self._sweep_router, ttl_ms),
            (self._gone, self._forget_replica, HOUR_MS),
            (self._heard["neighbour"], self._sweep_neighbour, HOUR_MS),
        ):
            silent = self._now.now - kept_ms
            dead = sorted((at, name) for name, at in since.items() if at <= silent)
            for _, name in dead[:SWEEP_SENDERS]:
                end(name)
        some_silent = not all(map(self._awaited, self._heard["router"]))
        for request, until in sorted(self._unseen.items(), key=itemgetter(1, 0))[:SWEEP_LIMIT]:
            entry = self._requests[request]
            if until <= self._now.now or (some_silent and not self._awaited(entry.router)):
                self._take_back(entry)

    # --- granting (grant.lua, order.lua, place.lua, predict.lua) ------------------------------

    def _grant_all(self) -> None:
        next_request = self._orders[self._policy]
        choose = self._placements[self._settings.placement]
        while len(self._load):
            entry = next_request()
            if entry is None:
                return
            if not self._awaited(entry.router):
                self._dequeue(entry)
                self._forget(entry, Usage())
                continue
            replica = choose(entry)
            self._note_choice(entry, replica)
            self._set_credits(replica, self._replicas[replica].credits - 1)
            turn = self._tree.next_client() if self._policy == "shadow" else None
            self._lease_to(replica, entry)
            if turn is not None:
                self.shadow.note(entry.client, turn, entry.charged)
                entry.turn = turn
            grant = self._describe(entry)
            entry.choice, entry.turn = (0, 0, ""), ""  # told once, as the scripts do
            if entry.router == self._now.sender.name:
                self._now.grants.append(grant)
            else:
                self._now.published.setdefault(entry.router, []).append(grant)

    def _next_by_counter(self) -> _Request | None:
        client = self._tree.next_client()
        return None if client is None else self._entry(self._lines[client].lowest())

    def _next_by_arrival(self) -> _Request | None:
        return self._entry(self._arrivals.lowest())

    def _entry(self, request: str | None) -> _Request | None:
        return None if request is None else self._requests[request]

    def _least_loaded(self, entry: _Request) -> str:
        replica = self._load.lowest()
        assert replica is not None, "asked only while there are credits"
        return replica

    def _awaited(self, router: str) -> bool:
        heard = self._heard["router"].get(router)
        return heard is not None and self._now.now - heard <= self._settings.sender_ttl_ms / 3

    def _lease_to(self, replica: str, entry: _Request) -> None:
        cost = self._settings.cost
        reserved = self._settings.prediction.of(
            self._tree.client(entry.client).outputs, self._output_average
        )
        estimate = cost.input_weight * self._expected_input(entry.bytes)
        estimate = entry.price * (estimate + cost.output_weight * reserved)
        self._hold(entry, replica, entry.attempt + 1, estimate, reserved)
        self._replicas[replica].granted += 1
        self._unseen[entry.id] = self._now.now + self._settings.grant_ttl_ms
        self._dequeue(entry)
        client = self._tree.client(entry.client)
        self.usage.of(client, self._now.today).waited += max(0, self._now.now - entry.queued)
        self._tree.turns.serve(outermost_of(client.parent))
        self._tree.add_service(client, estimate, entry.weight)

    def _expected_input(self, size: int) -> int:
        tokens = math.ceil(self._tokens_per_byte * size)
        return tokens if self._longest is None else min(tokens, self._longest)

    def _expected_tokens(self, size: int, max_output: int) -> int:
        output = math.ceil(self._output_average.tokens)
        return self._expected_input(size) + (output if max_output < 0 else min(output, max_output))

    def _remember_output(self, client: Client, output: int) -> None:
        window = self._settings.prediction.window
        if window == 0 or not self._tree.known(client):
            return
        client.outputs.append(output)
        del client.outputs[:-window]

    # --- the moves every verb is made of (moves.lua) ------------------------------------------

    def _place_of(self, request: str) -> tuple[int, int]:
        entry = self._requests[request]
        return entry.priority, entry.seq

    def _seq_of(self, request: str) -> tuple[int]:
        return (self._requests[request].seq,)

    def _load_of(self, replica: str) -> tuple[int]:
        return (-self._replicas[replica].credits,)

    def _set_policy(self, name: str, version: int) -> None:
        self._policy, self._policy_version = name, version
        self._tree.lifts = name != "lcf"

    def _new_request(
        self, request: str, client: str, router: str, weight: float, body_bytes: int
    ) -> _Request:
        self._seq += 1
        now = self._now.now
        entry = _Request(request, client, router, weight, body_bytes, self._seq, 0, 0, now)
        self._requests[request] = entry
        return entry

    def _stand_in_line(self, client: Client, entry: _Request, *, returning: bool) -> None:
        entry.queued = self._now.now
        line = self._lines.get(client.name)
        if line is None:
            line = self._lines[client.name] = LowestFirst(self._place_of)
        line.add(entry.id)
        if entry.held is not None:
            self.meters.queue(entry.held, 1, entry.bytes, self._now.now)
        self._arrivals.add(entry.id)
        self._routed.setdefault(entry.router, set()).add(entry.id)
        self._tree.begin_waiting(client, returning=returning)

    def _dequeue(self, entry: _Request) -> None:
        client = self._tree.client(entry.client)
        self._lines[client.name].discard(entry.id)
        if entry.held is not None:
            self.meters.queue(entry.held, -1, entry.bytes, self._now.now)
        self._arrivals.discard(entry.id)
        self._routed[entry.router].discard(entry.id)
        if not self._routed[entry.router]:
            del self._routed[entry.router]
        self._tree.end_waiting(client)
        if not client.waiting:
            del self._lines[client.name]

    def _forget(self, entry: _Request, usage: Usage) -> None:
        """The request is over."""
        if entry.held is not None:
            self.meters.settle(entry.held, usage.input + usage.output, self._now.now)
        del self._requests[entry.id]

    def _set_credits(self, replica: str, credits: int) -> None:
        self._replicas[replica].credits = credits
        if credits > 0:
            self._load.add(replica)
        else:
            self._load.discard(replica)

    def _service(self, price: float, usage: Usage) -> float:
        return price * self._cost_of(usage.input, usage.output, usage.cached)

    def _service_reserved(self, entry: _Request, usage: Usage) -> float:
        output = usage.output if usage.output > entry.reserved else entry.reserved
        return entry.price * self._cost_of(usage.input, output, usage.cached)

    def _held(self, lease: str) -> _Request | None:
        """The lease, if the sender holds it; else it is over or forgotten (charge.lua)."""
        now = self._now
        if now.lost:
            return None
        entry = self._leased.get(lease)
        if entry is not None and entry.replica == now.sender.name:
            return entry
        sender = now.sender.name
        if lease in self._voids.get(sender, {}) or lease in self._settled.get(sender, ()):
            return None
        request, attempt = _split(lease)
        known = self._requests.get(request)
        if (
            known is None
            or known.attempt < attempt
            or (known.attempt == attempt and known.replica is not None and not known.arrived)
        ):
            now.unknown.append(lease)
        return None

    def _hold(
        self, entry: _Request, replica: str, attempt: int, charged: float, reserved: float
    ) -> None:
        entry.replica, entry.attempt = replica, attempt
        entry.charged, entry.reserved, entry.used = charged, reserved, Usage()
        self._leases.setdefault(replica, set()).add(entry.id)
        self._leased[entry.lease] = entry
        client = self._tree.client(entry.client)
        self._tree.add_running(client, 1)
        self._tree.note_charge(client, charged, entry.weight)

    def _see(self, entry: _Request) -> None:
        self._unseen.pop(entry.id, None)

    def _set_charge(self, entry: _Request, usage: Usage, charged: float) -> None:
        client = self._tree.client(entry.client)
        if charged != entry.charged:  # else it stays within what was reserved
            self._tree.add_service(client, charged - entry.charged, entry.weight)
        self._count_usage(client, entry.price, usage, entry.used)
        entry.used, entry.charged = usage, charged
        self._tree.note_charge(client, charged, entry.weight)

    def _count_usage(self, client: Client, price: float, new: Usage, old: Usage) -> None:
        more = Used(
            0,
            new.input - old.input,
            new.cached - old.cached,
            new.output - old.output,
            self._service(price, new) - self._service(price, old),
        )
        client.input += more.input
        client.cached += more.cached
        client.output += more.output
        client.service += more.service
        self.usage.of(client, self._now.today).add(more)

    def _count_request(self, client: Client, usage: Usage, count: int = 1) -> None:
        if usage.input > 0:
            self.usage.of(client, self._now.today).requests += count

    def _settle(self, entry: _Request, usage: Usage) -> None:
        how = "settled" if entry.replica == self._now.sender.name else "lost"
        self._note_end(entry, how, usage)
        self._set_charge(entry, usage, self._service(entry.price, usage))
        self._count_request(self._tree.client(entry.client), usage)
        self._release(entry)
        self._forget(entry, usage)
        self._now.counters[entry.client] = None

    def _confirm(self, payer: tuple[float, float, str] | None, usage: Usage) -> None:
        if payer is None:
            return
        weight, price, name = payer
        service = self._service(price, usage)
        if service == 0:
            return
        client = self._tree.client(name)
        self._tree.add_service(client, service, weight)
        self._count_usage(client, price, usage, Usage())
        self._count_request(client, usage)
        for node in self._tree.with_groups(client):
            self.meters.pay(node.name, usage.input + usage.output, self._now.now)
        self._now.counters[name] = None

    def _refund(self, entry: _Request) -> None:
        client = self._tree.client(entry.client)
        self._tree.add_service(client, -entry.charged, entry.weight)
        self._count_usage(client, entry.price, Usage(), entry.used)

    def _release(self, entry: _Request) -> None:
        assert entry.replica is not None
        del self._leased[entry.lease]
        self._leases[entry.replica].discard(entry.id)
        if not self._leases[entry.replica]:
            del self._leases[entry.replica]
        if not entry.arrived:
            self._see(entry)
        self._tree.add_running(self._tree.client(entry.client), -1)

    def _void(self, entry: _Request, payer: tuple[float, float, str] | None) -> None:
        if entry.replica in self._heard["replica"]:
            self._voids.setdefault(entry.replica, {})[entry.lease] = payer

    def _take_back(self, entry: _Request) -> None:
        self._note_end(entry, "taken_back", Usage())
        self._refund(entry)
        self._void(entry, (entry.weight, entry.price, entry.client))
        self._release(entry)
        self._forget(entry, Usage())

    def _describe(self, entry: _Request) -> Grant:
        assert entry.replica is not None
        replica, client = self._replicas.get(entry.replica), self._tree.client(entry.client)
        return Grant(
            entry.id,
            entry.lease,
            entry.replica,
            replica.url if replica else "",
            self._tree.counter(client),
            tuple(
                Group(group.name, group.weight, self._tree.counter(group))
                for group in reversed([*self._tree.with_groups(self._tree.parent(client))])
                if isinstance(group, GroupNode)
            ),
            Choice(entry.charged, entry.reserved, *entry.choice, entry.turn)
            if entry.explained
            else None,
        )

    # --- explaining (explain.lua) -------------------------------------------------------------

    def _note_choice(self, entry: _Request, replica: str) -> None:
        if not entry.explained:
            return
        self._load.discard(replica)
        other = self._load.lowest()
        self._load.add(replica)
        credits = self._replicas[replica].credits
        entry.choice = (credits, self._replicas[other].credits if other else 0, other or "")

    def _note_end(self, entry: _Request, how: str, usage: Usage) -> None:
        if not entry.explained or not entry.router:
            return
        end = End(how, *usage, entry.charged, self._service(entry.price, usage), entry.lease)
        self._now.ended.append((entry.router, end))

    def _keep_ends(self) -> None:
        for router, end in self._now.ended:
            ends = self._ends.setdefault(router, [])
            ends.append(end)
            del ends[:-ENDS_KEPT]

    def _standing(self, entry: _Request) -> Standing:
        """O(clients that wait): a router asks the store only, not its own stand-in."""
        client = self._tree.client(entry.client)
        line, place = self._lines[entry.client], self._place_of
        of_client = before_it = sum(place(other) < place(entry.id) for other in line)
        if self._orders[self._policy] == self._next_by_arrival:
            before_it = sum(self._seq_of(other) < (entry.seq,) for other in self._arrivals)
        levels = [self._place(node) for node in self._tree.with_groups(client)]
        if self._policy == "fcfs":
            levels.clear()
        return Standing(self._policy, before_it, tuple(reversed(levels)), of_client)

    def _place(self, node: Client | GroupNode) -> Place:
        turns = self._tree.turns
        if node.name in turns:
            before = [
                name
                for name in self._settings.classes.floors
                if name in self._tree.root.backlogged and turns.key(name) < turns.key(node.name)
            ]
            due = tuple((name, turns.owed.get(name, 0.0)) for name in before)
            return Place(node.name, turns.owed.get(node.name, 0.0), len(before), due)
        waiting = self._tree.parent(node).backlogged
        counters = sorted((self._tree.node(name).counter, name) for name in waiting)
        ahead = [(name, of) for of, name in counters if (of, name) < (node.counter, node.name)]
        return Place(node.name, node.counter, len(ahead), tuple(ahead[:AHEAD_NAMED]))

    # --- sweeping (sweep.lua) -----------------------------------------------------------------

    def _forgive_absence(self) -> None:
        now = self._now.now
        away = now - (now if self._swept is None else self._swept)
        self._swept = now
        if away <= self._settings.sender_ttl_ms / 2:
            return
        for heard in self._heard.values():
            heard.update(dict.fromkeys(heard, now))
        for request in self._unseen:
            self._unseen[request] += away

    def _sweep_replica(self, name: str) -> None:
        left = self._heard["replica"][name] == 0
        self._load.discard(name)
        for request in sorted(self._leases.get(name, ()))[:SWEEP_LIMIT]:
            entry = self._requests[request]
            if not left:
                self._swept_leases.setdefault(name, {})[entry.lease] = entry.used
            self._settle(entry, entry.used)
        if name not in self._leases:
            del self._heard["replica"][name]
            self._replicas.pop(name, None)
            self._voids.pop(name, None)
            self._gone[name] = self._now.now - (HOUR_MS if left else 0)

    def _forget_replica(self, name: str) -> None:
        del self._gone[name]
        self._swept_leases.pop(name, None)
        if name not in self._heard["replica"]:
            self._calls.pop(name, None)
            self._settled.pop(name, None)

    def _sweep_router(self, name: str) -> None:
        for request in sorted(self._routed.get(name, ()))[:SWEEP_LIMIT]:
            entry = self._requests[request]
            self._dequeue(entry)
            self._forget(entry, Usage())
        if name not in self._routed:
            self._forget_sender("router", name)

    def _sweep_neighbour(self, name: str) -> None:
        self._forget_sender("neighbour", name)

    def _forget_sender(self, kind: str, name: str) -> None:
        del self._heard[kind][name]
        self._calls.pop(name, None)


class MemoryQueue:
    """`GlobalQueue` over a `MemoryPool`: for senders of one event loop."""

    def __init__(self, settings: QueueSettings, now_ms: Callable[[], int]) -> None:
        self.pool = MemoryPool(settings, now_ms, self._publish)
        self._listeners: dict[str, list[asyncio.Queue[tuple[Grant, ...]]]] = {}

    async def execute(self, sender: Sender, call: Call) -> Reply:
        """Apply a call; never waits."""
        return self.pool.apply(sender, call)

    async def granted(self, router: str) -> AsyncIterator[tuple[Grant, ...]]:
        """Grants made in others' calls while somebody listens, until cancelled."""
        heard: asyncio.Queue[tuple[Grant, ...]] = asyncio.Queue()
        listeners = self._listeners.setdefault(router, [])
        listeners.append(heard)
        try:
            while True:
                yield await heard.get()
        finally:
            listeners.remove(heard)
            if not listeners:
                self._listeners.pop(router, None)

    async def clients(self) -> list[ClientState]:
        """Every client heard of."""
        return self.pool.clients()

    async def groups(self) -> list[GroupState]:
        """Every group heard of."""
        return self.pool.groups()

    async def shadow(self) -> ShadowReport:
        """What a fair order would have changed."""
        return self.pool.shadow.report()

    async def last_days(self, clients: Sequence[str] | None = None) -> LastDays:
        """The first day that is kept; last days are kept as the others are, see `used_on`."""
        return LastDays(self.pool.usage.oldest or 0, {})

    async def used_on(self, day: int, clients: Sequence[str] | None = None) -> dict[str, Used]:
        """What these clients, or all, used on any day."""
        return self.pool.usage.on(day, clients)

    def _publish(self, router: str, grants: tuple[Grant, ...]) -> None:
        for heard in self._listeners.get(router, ()):
            heard.put_nowait(grants)
