"""The global queue's contract: verbs, what they cost, what they promise.

A `Call` is one round trip: any number of verbs from one sender (a router or a replica), applied
in order and at once. When a call ends, no credit and waiting request are left unmatched.

**Twice, late, out of order.** Every verb may be. `submit`, `cancel` and `reconcile` are keyed by
request id, and so is `price`; `requeue`, `charge`, `settle` and `resync_lease` by lease id, with
cumulative totals; `offer` carries a version. And calls are numbered per sender (`Session`): the
store remembers the last number it has applied for each, so that a call that comes again, or after
later ones, adds nothing that was over already. (`served_elsewhere` rests on the number alone: a
neighbour sends one call at a time, and the same again until it has a reply. So its number is kept
for an hour.) Grants whose reply was lost are told again by `reconcile`.

**A store that forgets.** A call also says which number its sender has last had a reply for. A
store that has not heard of it has lost what came in between (a crash between two syncs, a
failover, an empty restart, or it took a router for dead and swept it). It says so
(`Reply.lost`), and the sender sends what it owns: a router its waiting requests, a replica its
leases with their totals and its clients' counters, which merge by max (`resync_*`).

**A replica that was only cut off** from the store, and swept, goes on with its leases. Its calls
and what each lease was settled with are kept for an hour. So it is told of nothing lost: its leases
are unknown one by one (`Reply.unknown`), go on from what was settled, and what they used meanwhile
is charged as usual. After an hour the above holds, and what was used meanwhile counts for little.

Every call is also its sender's heartbeat.

**Limits** (`fairness.limits`). What a submit has reserved is kept with its request, and is settled
where the request ends, in the same call: cancelled, settled, swept, taken back. So no death of a
sender leaves anything reserved. What a store has forgotten is reserved by nobody: buckets are then
full, and a lease that is resynced counts for no limit.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

from fairness.classes import Classes
from fairness.cost import ServiceCost
from fairness.groups import ROOT, Group
from fairness.limits import Rates, Refusal, Terms
from fairness.policy import policy as policy_named
from fairness.prediction import Prediction
from fairness.store.explain import Choice, End, Standing
from fairness.store.shadow import ShadowReport
from fairness.store.usage import LastDays, Used

SenderKind = Literal["router", "replica", "neighbour"]
Argument = str | int | float
PLACEMENTS = ("least_loaded",)
PRIORITY_LIMIT = 1_000


@dataclass(frozen=True, slots=True)
class Sender:
    """Who calls. `name` is unique to one life of a process (its incarnation).

    A neighbour is a replica of another pool, where clients of this one are served as well.
    """

    kind: SenderKind
    name: str


@dataclass(frozen=True, slots=True)
class Grant:
    """Request `request` goes to `replica` at `url`, as lease `lease`.

    `counter` is its client's counter (service / weight) after the grant's own estimate; `groups`
    are those that the client stands in, the outermost first. choice: of a request to be explained.
    """

    request: str
    lease: str
    replica: str
    url: str
    counter: float
    groups: tuple[Group, ...] = ()
    choice: Choice | None = None


@dataclass(frozen=True, slots=True)
class ReplicaState:
    """A live replica: where it listens, and whether it takes requests (or drains)."""

    url: str
    taking: bool


class Usage(NamedTuple):
    """Tokens of one lease so far, in all. `cached` of the `input` came from the prefix cache.

    (A tuple, as one is made for each lease that runs in every report: a frozen dataclass takes
    three times as long to make.)
    """

    input: int = 0
    cached: int = 0
    output: int = 0

    def __add__(self, other: tuple[Any, ...], /) -> Usage:
        """Add by kind."""
        more_input, more_cached, more_output = other
        return Usage(self.input + more_input, self.cached + more_cached, self.output + more_output)


@dataclass(slots=True)
class Call:
    """Verbs to apply in one round trip. Each method adds one; costs are the store's.

    number: counts the sender's calls; the same when the same call is sent again; 0: not counted.
    acked: number of the sender's last call that it has had a reply to.
    """

    verbs: list[tuple[Argument, ...]] = field(default_factory=list)
    number: int = 0
    acked: int = 0

    def __len__(self) -> int:
        return len(self.verbs)

    def submit(
        self,
        request: str,
        client: str,
        weight: float,
        body_bytes: int,
        *,
        attempt: int = 0,
        priority: int = 0,
        groups: Iterable[Group] = (),
        terms: Terms | None = None,
    ) -> None:
        """Router: stand in the client's line. O(log waiting), for each level of groups.

        attempt: larger than that of any lease of this request, when it is submitted anew.
        priority: from -`PRIORITY_LIMIT` to it. The smaller goes before the client's other requests,
        and before nobody else's. groups: those that the client stands in from now on, the outermost
        first; weights hold from now on. Who moves is a newcomer there. terms: the limits of the
        client and of these groups: `Reply.rates` tells how it stands, and `Reply.refused` that
        it was not let in.
        """
        verb = ("submit",) if terms is None else ("submit_limited", terms.text())
        self.verbs.append(
            (*verb, request, client, weight, body_bytes, attempt, priority, *_flat(groups))
        )

    def price(self, request: str, price: float) -> None:
        """Router, after `submit`; replica, after `resync_lease`: the service of this request is so
        many times what its tokens cost. Without it, once. Tokens count as they are. O(1)."""
        self.verbs.append(("price", request, price))

    def cancel(self, request: str) -> None:
        """Router: the client left before an answer began. Free, but for what a replica says it
        has computed already. O(log waiting)."""
        self.verbs.append(("cancel", request))

    def ended(self, request: str) -> None:
        """Router: its answer has come to its end, so it is in flight no more, though its replica
        has not settled it yet. O(levels); without limits, nothing."""
        self.verbs.append(("ended", request))

    def requeue(self, lease: str) -> None:
        """Router: the replica failed before the first byte; back to the old place, refunded."""
        self.verbs.append(("requeue", lease))

    def reconcile(self, request: str) -> None:
        """Router: tell me again what became of it (`Reply.grants` or `Reply.gone`). O(1)."""
        self.verbs.append(("reconcile", request))

    def explain(self, request: str, *, standing: bool) -> None:
        """Router, after `submit`: I keep this request's story. Its grant will have a `choice`, its
        end is kept for `ends`. standing: tell where it stands if it waits (`Reply.standings`).
        O(1); a standing O(log clients) for each level of groups."""
        self.verbs.append(("explain", request, int(standing)))

    def ends(self) -> None:
        """Router: which of those I explain are over (`Reply.ends`)? Each is told once; with a lost
        reply it is lost. O(those)."""
        self.verbs.append(("ends",))

    def offer(self, url: str, limit: int, arrived: int, version: int, longest: int) -> None:
        """Replica: I take `limit` grants in all, and have seen `arrived` so far. O(log replicas).

        `version` grows with every new offer; an older one is ignored. longest: tokens of the
        longest prompt it takes; no prompt is estimated at more.
        """
        self.verbs.append(("offer", url, limit, arrived, version, longest))

    def charge(self, lease: str, usage: Usage) -> None:
        """Replica: this lease has used so much by now. O(log clients)."""
        self.verbs.append(("charge", lease, usage.input, usage.cached, usage.output))

    def settle(self, lease: str, usage: Usage) -> None:
        """Replica: this lease is over and used so much. O(log clients)."""
        self.verbs.append(("settle", lease, usage.input, usage.cached, usage.output))

    def served_elsewhere(
        self,
        client: str,
        weight: float,
        service: float,
        debt: float,
        groups: Iterable[Group] = (),
    ) -> None:
        """Neighbour, in a numbered call: the client has received so much more in another pool.

        service: what that is worth here; below 0, what was said too much of it. debt: how far it
        may put a counter above those who wait here: service by weight, for each live replica.
        groups: those that the client stands in, the outermost first; heeded when it has nothing
        waiting or running here. O(log clients), for each level of groups.
        """
        self.verbs.append(("served_elsewhere", client, weight, service, debt, *_flat(groups)))

    def policy(self, name: str, reason: str) -> None:
        """Anyone: order grants by this policy. Heeded once for each `reason`.

        Raises ValueError for an unknown policy.
        """
        self.verbs.append(("policy", policy_named(name).name, reason))

    def heartbeat(self) -> None:
        """Anyone, every second: end what dead senders left behind (bounded work), and learn the
        pool's state (`Reply.pool`). O(replicas)."""
        self.verbs.append(("sweep",))
        self.verbs.append(("pool",))

    def leave(self) -> None:
        """Anyone, last of all: I end now; what I leave behind may be swept at once."""
        self.verbs.append(("leave",))

    def resync_pool(self, state: PoolState) -> None:
        """Anyone, after a loss: what I last knew of the pool. Policy by version, V by max; no one
        who waits stands below where it lets newcomers start. O(backlogged clients), once a loss."""
        self.verbs.append(("resync_pool", state.virtual_time, state.policy, state.policy_version))

    def resync_client(self, node: str, counter: float) -> None:
        """Replica, after a loss and after `resync_lease`, which says where clients stand: the
        counter of this client or group was at least this. Merges by max."""
        self.verbs.append(("resync_client", node, counter))

    def resync_lease(
        self,
        lease: str,
        client: str,
        weight: float,
        usage: Usage,
        groups: Iterable[Group] = (),
    ) -> None:
        """Replica: I hold this lease. `usage` is in the client's counter and totals already (or
        in what was lost of them), so that only what exceeds it will be charged."""
        tokens = (usage.input, usage.cached, usage.output)
        self.verbs.append(("resync_lease", lease, client, weight, *tokens, *_flat(groups)))


def _flat(groups: Iterable[Group]) -> list[Argument]:
    return [argument for group in groups for argument in (group.weight, group.name)]


@dataclass(frozen=True, slots=True)
class PoolState:
    """The pool as a heartbeat finds it.

    policy_version: grows whenever the policy is set. virtual_time: V; newcomers start
    there, or as far below it as a burst allows. replicas: the live ones. waiting: requests.
    """

    policy: str = "vtc"
    policy_version: int = 0
    virtual_time: float = 0.0
    replicas: dict[str, ReplicaState] = field(default_factory=dict)
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """What one call returned.

    grants: the sender's own. gone: requests the queue does not know. counters: of the clients
    charged or settled in the call, and of the groups they stand in. voided: leases taken back from
    this replica that it has not confirmed. unknown: leases it spoke of that the queue does not know
    and that are not over: resync them from zero, then say it again. lost: the queue has forgotten
    something this sender told it: resync everything. pool: None when the call was no heartbeat.
    standings, ends: see `Call.explain`, `Call.ends`. rates: of the requests submitted on terms,
    also of the `refused`, which do not wait.
    """

    grants: tuple[Grant, ...] = ()
    gone: tuple[str, ...] = ()
    counters: dict[str, float] = field(default_factory=dict)
    voided: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    lost: bool = False
    pool: PoolState | None = None
    standings: dict[str, Standing] = field(default_factory=dict)
    ends: tuple[End, ...] = ()
    refused: dict[str, Refusal] = field(default_factory=dict)
    rates: dict[str, Rates] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClientState:
    """One client over the whole pool. Tokens as they were used; service unweighted. group: the
    innermost it stands in, "/" for none."""

    client: str
    counter: float
    waiting: int
    running: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    service: float
    group: str = ROOT


@dataclass(frozen=True, slots=True)
class GroupState:
    """One group over the whole pool. waiting: how many of those in it have something waiting;
    running: leases of its clients. owed: of a priority class with a floor (`fairness.classes`);
    else None."""

    group: str
    weight: float
    counter: float
    waiting: int
    running: int
    owed: float | None = None


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """What every sender of a pool must agree on.

    sender_ttl_ms: a sender silent for so long is dead. grant_ttl_ms: a grant must reach its
    replica within it. prediction: of output tokens, charged at the grant. placement: which
    replica a grant goes to. burst: service (by weight) a live replica, that a client back from
    idleness is ahead of those who wait; not below 0. usage_retention_days: how many days
    of usage are kept. classes: those that clients may be in; see
    `fairness.classes`.
    """

    cost: ServiceCost = field(default_factory=ServiceCost)
    sender_ttl_ms: int = 10_000
    grant_ttl_ms: int = 15_000
    prediction: Prediction = field(default_factory=Prediction)
    placement: str = PLACEMENTS[0]
    burst: float = 0.0
    usage_retention_days: int = 400
    classes: Classes = field(default_factory=Classes)


class GlobalQueue(Protocol):
    """One pool's queue, wherever its state is kept."""

    async def execute(self, sender: Sender, call: Call) -> Reply:
        """Apply a call. Raises `StoreUnavailableError` when the state can't be reached."""
        ...

    def granted(self, router: str) -> AsyncIterator[tuple[Grant, ...]]:
        """Grants made in others' calls, until cancelled. Lossy: reconcile what waits long.

        Raises StoreUnavailableError.
        """
        ...

    async def clients(self) -> list[ClientState]:
        """Every client the pool has heard of. O(clients): for people, not for requests."""
        ...

    async def groups(self) -> list[GroupState]:
        """Every group the pool has heard of. O(groups): for people, not for requests."""
        ...

    async def shadow(self) -> ShadowReport:
        """What a fair order would have changed. O(clients): for people, not for requests."""
        ...

    async def last_days(self, clients: Sequence[str] | None = None) -> LastDays:
        """See `fairness.store.usage.UsageSource`."""
        ...

    async def used_on(self, day: int, clients: Sequence[str] | None = None) -> dict[str, Used]:
        """See `fairness.store.usage.UsageSource`."""
        ...


class StoreUnavailableError(Exception):
    """The store did not answer; whether the call was applied is unknown (send it again)."""


class CallRefusedError(Exception):
    """The store could not make sense of a verb in this call: a fault of ours, and it will not
    get better by sending it again."""
