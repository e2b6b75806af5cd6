"""What one replica owes and is owed: its leases, their tokens, and its window of credits.

Pure bookkeeping: no clock, no engine, no store. Three sources speak of a lease:

- the router's HTTP request opens it, and its end closes it;
- the responses handed to the client say what the client was *told* (its `usage`);
- the engine's scheduler says what was really computed, admitted or still waits.

A lease whose answers all came to their end is settled with what the client was told. One cut off
(the client left, an error) is settled with what the engine computed, once the engine has let go
of it. One that never reached the engine (a refused parameter) is free.

The window: `limit` is how many grants this replica takes in all until further notice. It takes what
fills the batch and its lookahead: `slots + lookahead`, less what it has. But no more may wait here
than run, or the lookahead if that is more: whether a request fits is known only when it runs, and
what waits here is beyond the reach of the global queue (filled at once, an idle engine whose memory
runs out before its slots would give all its places to whoever came first; docs/theory.md). Once the
engine has admitted something it says how many more it `fits`: then no more wait than those and one,
which is there so that the engine itself finds the moment at which it can run. And while the engine
is `pressed`, that is, leaves requests waiting though it has free slots (it is busy with long
prompts, say), no more than the lookahead waits. One request of many sequences, which may be more
than the batch holds, never closes the replica to others: the lookahead stays. So an idle engine is
filled by doubling, in a few steps, and a full one is never given what another replica could run
sooner.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import NamedTuple

from fairness.grant_token import GrantToken
from fairness.groups import Group
from fairness.store.contract import Usage
from fairness.store.stand_in import LeaseState

# The engine's row of one lease: lease, waiting, running, input, cached, output.
EngineRow = tuple[str, int, int, int, int, int]

REMEMBERED_LEASES = 100_000  # ended ones, against replay; a token lives far shorter than this
RECENT_SETTLEMENTS = 256  # confirmed ones that a store which forgets its last second may ask for


@dataclass(slots=True)
class EngineCall:
    """One `generate` (or `encode`) under a lease: what its client was told so far."""

    input: int = 0
    cached: int = 0
    outputs: dict[int, int] = field(default_factory=dict)
    complete: bool = False


@dataclass(slots=True)
class Lease:
    """One grant that arrived here."""

    token: GrantToken
    calls: list[EngineCall] = field(default_factory=list)
    computed: Usage = Usage()  # noqa: RUF009 (a frozen value)
    earlier: Usage = Usage()  # noqa: RUF009 (of computed: by engine requests of a past life)
    spent: Usage = Usage()  # noqa: RUF009 (as `LeaseBook.take_spent` last had it)
    waiting: int = 0
    running: int = 0
    seen_by_engine: bool = False
    closed: bool = False
    started: bool = False
    reported: Usage | None = None

    @property
    def name(self) -> str:
        """The lease's id in the global queue."""
        return self.token.lease

    @property
    def occupies(self) -> int:
        """Slots of the batch it takes or will take: one until the engine says more."""
        return max(1, self.waiting + self.running)

    @property
    def told(self) -> Usage:
        """Tokens the client has been told of, over all calls."""
        return Usage(
            sum(call.input for call in self.calls),
            sum(call.cached for call in self.calls),
            sum(sum(call.outputs.values()) for call in self.calls),
        )

    @property
    def final(self) -> Usage | None:
        """What to settle with, or None while that is not known yet."""
        if not self.closed:
            return None
        if all(call.complete for call in self.calls):
            return self.told
        if self.seen_by_engine and self.waiting == self.running == 0:
            return self.computed
        return None

    def heed(self, waiting: int, running: int, usage: Usage) -> None:
        """The engine's word. It forgets a lease with none of its requests left, and starts from
        zero when another comes (lists of prompts), so its totals are added up here."""
        self.seen_by_engine = True
        self.waiting, self.running = waiting, running
        self.computed = self.earlier + usage
        if waiting == running == 0:
            self.earlier = self.computed

    def give_up(self) -> None:
        """The engine will say nothing more of it: settle with what is known."""
        self.seen_by_engine, self.waiting, self.running = True, 0, 0


@dataclass(frozen=True, slots=True)
class Holding:
    """A lease as the queue should know it, if it has forgotten."""

    lease: str
    client: str
    weight: float
    groups: tuple[Group, ...]
    usage: Usage
    price: float


def _holding(token: GrantToken, usage: Usage) -> Holding:
    return Holding(token.lease, token.client, token.weight, token.groups, usage, token.price)


class Spent(NamedTuple):
    """What a lease had used when somebody last asked, and has by now."""

    token: GrantToken
    before: Usage
    now: Usage


class DuplicateLeaseError(Exception):
    """The lease was used before, or taken back."""


class LeaseBook:
    """All leases of one replica. Every operation is O(1), reports are O(leases changed)."""

    def __init__(self, lookahead: int, slots: int) -> None:
        """slots: requests that fit in the engine's batch."""
        self._lookahead = lookahead
        self._slots = slots
        self._occupied = 0
        self.pressed = False
        self.fits: int | None = None  # more requests that its memory is likely to hold
        self._open: dict[str, Lease] = {}
        self._over: dict[str, None] = {}  # insertion-ordered set
        self._changed: dict[str, Lease] = {}
        self._unconfirmed: dict[str, Usage] = {}
        self._settled: dict[str, Holding] = {}  # unconfirmed and recent, oldest first
        self._clients: Counter[str] = Counter()
        self._departed: set[str] = set()
        self._ended: list[Spent] | None = None  # since `take_spent`; None: nobody asks
        self._arrived = 0
        self._started = 0
        self.draining = False

    @property
    def arrived(self) -> int:
        """Grants this replica has seen in all, taken-back ones included."""
        return self._arrived

    @property
    def limit(self) -> int:
        """Grants it takes in all until further notice; 0 when draining. See the module's text."""
        if self.draining:
            return 0
        room = self._slots + self._lookahead - self._occupied
        ahead = self._lookahead - self.unstarted
        if self.pressed:
            room = min(room, ahead)
        else:
            running = len(self._open) - self.unstarted
            room = max(min(room, running - self.unstarted), ahead)
        if self.fits is not None:
            room = min(room, self.fits + 1 - self.unstarted)
        return self._arrived + max(0, room)

    @property
    def room(self) -> int:
        """Grants it takes now."""
        return max(0, self.limit - self._arrived)

    @property
    def unstarted(self) -> int:
        """Leases of which nothing is in the batch yet."""
        return self._arrived - self._started

    @property
    def open_leases(self) -> int:
        """Leases not settled here yet."""
        return len(self._open)

    @property
    def busy(self) -> bool:
        """Is any lease open, or a settlement not confirmed by the store?"""
        return bool(self._open or self._unconfirmed)

    def open(self, token: GrantToken) -> Lease:
        """A router's request arrived. Raises DuplicateLeaseError."""
        if token.lease in self._open or token.lease in self._over:
            raise DuplicateLeaseError(f"lease {token.lease} was used before or taken back")
        lease = Lease(token)
        self._open[token.lease] = lease
        self._occupied += lease.occupies
        self._changed[token.lease] = lease
        self._arrived += 1
        self._clients[token.client] += 1
        self._departed.discard(token.client)
        return lease

    def close(self, lease: Lease) -> None:
        """The HTTP exchange is over, however it ended."""
        lease.closed = True
        self._settle_if_final(lease)

    def give_up(self, lease: Lease) -> None:
        """Stop waiting for the engine's word on a closed lease."""
        self._occupied -= lease.occupies - 1
        lease.give_up()
        self._settle_if_final(lease)

    def void(self, leases: Iterable[str]) -> None:
        """The queue took these back; confirm those that never arrived, refuse them for good."""
        for name in leases:
            if name not in self._open and name not in self._unconfirmed:
                if name not in self._over:
                    self._arrived += 1
                    self._started += 1
                self._end(name, Usage())

    def update(self, rows: Iterable[EngineRow]) -> None:
        """The engine's word on leases that changed."""
        for name, waiting, running, *tokens in rows:
            lease = self._open.get(name)
            if lease is None:
                continue
            self._occupied -= lease.occupies
            lease.heed(waiting, running, Usage(*tokens))
            self._occupied += lease.occupies
            self._changed[name] = lease
            if running > 0 or waiting == 0:
                self._start(lease)
            self._settle_if_final(lease)

    def take_charges(self) -> list[tuple[str, Usage]]:
        """Open leases with news since the last call: their usage so far, in all."""
        charges = []
        for name, lease in self._changed.items():
            if lease.computed != lease.reported:
                charges.append((name, lease.computed))
                lease.reported = lease.computed
        self._changed.clear()
        return charges

    def take_spent(self) -> list[Spent]:
        """What leases have used since the last call, those that ended meanwhile first. O(leases).

        Who has called this once has to go on: what ended is kept for the next call.
        """
        spent, self._ended = self._ended or [], []
        for lease in self._open.values():
            if lease.computed != lease.spent:
                spent.append(Spent(lease.token, lease.spent, lease.computed))
                lease.spent = lease.computed
        return spent

    @property
    def has_departed(self) -> bool:
        """Is there a client that `take_departed` would name?"""
        return bool(self._departed)

    def take_departed(self) -> list[str]:
        """Clients whose last lease here ended since the last call."""
        departed, self._departed = self._departed, set()
        return list(departed)

    def recharge(self) -> None:
        """The last charges may not have reached the store: tell all open leases again."""
        for name, lease in self._open.items():
            lease.reported = None
            self._changed[name] = lease

    def settlements(self, limit: int | None = None) -> list[tuple[str, Usage]]:
        """Leases that are over and not yet confirmed, the oldest first; repeat them until
        `confirm`ed."""
        return list(islice(self._unconfirmed.items(), limit))

    def confirm(self, settlements: Iterable[tuple[str, Usage]]) -> None:
        """The store has these."""
        for name, _ in settlements:
            self._unconfirmed.pop(name, None)
        while len(self._settled) - len(self._unconfirmed) > RECENT_SETTLEMENTS:
            oldest = next((name for name in self._settled if name not in self._unconfirmed), None)
            if oldest is None:
                break
            del self._settled[oldest]

    def holding(self, lease: str) -> Holding | None:
        """What the queue must be told of a lease that it does not know; nothing is counted yet.
        None when there is nothing to tell: it never arrived here."""
        if lease in self._open:
            token = self._open[lease].token
            self._open[lease].reported = None
            self._changed[lease] = self._open[lease]
            return _holding(token, Usage())
        settled = self._settled.get(lease)
        return settled and replace(settled, usage=Usage())

    def open_holdings(self) -> Iterator[Holding]:
        """Every open lease, with all it has used; what comes now will be charged on top."""
        for lease in self._open.values():
            lease.reported = lease.computed
            yield _holding(lease.token, lease.computed)

    def settled_holdings(self) -> list[Holding]:
        """Leases that are over, which the queue may not know or not know to be over."""
        return list(self._settled.values())

    def state_of(self, lease: str) -> tuple[LeaseState, Usage]:
        """What is known of a lease, and its usage so far."""
        if lease in self._open:
            return LeaseState.OPEN, self._open[lease].computed
        settled = self._settled.get(lease)
        if settled is not None:
            return LeaseState.OVER, settled.usage
        return LeaseState.OVER if lease in self._over else LeaseState.UNKNOWN, Usage()

    def _start(self, lease: Lease) -> None:
        if not lease.started:
            lease.started = True
            self._started += 1

    def _settle_if_final(self, lease: Lease) -> None:
        usage = lease.final
        if usage is not None and self._open.pop(lease.name, None) is not None:
            self._changed.pop(lease.name, None)
            self._occupied -= lease.occupies
            self._start(lease)
            token = lease.token
            self._settled[lease.name] = _holding(token, usage)
            if self._ended is not None and usage != lease.spent:
                self._ended.append(Spent(token, lease.spent, usage))
            self._leave(token.client)
            self._end(lease.name, usage)

    def _leave(self, client: str) -> None:
        self._clients[client] -= 1
        if self._clients[client] == 0:
            del self._clients[client]
            self._departed.add(client)

    def _end(self, name: str, usage: Usage) -> None:
        self._unconfirmed[name] = usage
        self._over[name] = None
        while len(self._over) > REMEMBERED_LEASES:
            del self._over[next(iter(self._over))]
