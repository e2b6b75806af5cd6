"""Two looks at a pool make an observation. Pure: no clock, no store.

A look hands over its clients page by page (`Comparison.add`, O(page)), so that whoever looks can
do other things in between; what is left for the end is O(groups + rows). Rates are differences of
totals; a total that has shrunk (a store that lost its data) counts as nothing used.

Counters are compared among those that stand together, on each level of groups. That of a node
which stays backlogged is not lifted, so its growth is the service it received, by its weight.
Jain's index is taken of that, over a quarter to half of a minute, since within one interval most
clients of a large pool receive nothing. (Who came back between two looks passes for one that
stayed.)
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fairness.classes import PREFIX as CLASS
from fairness.groups import groups_within, parent_of_group
from fairness.observe.observation import (
    ClientRow,
    GroupRow,
    Observation,
    Others,
    Rates,
    ReplicaRow,
)
from fairness.observe.stated_bound import Bounds, Sizes, bounds_of, seen_bound
from fairness.policy import VTC
from fairness.store.contract import ClientState, GroupState, QueueSettings

JAIN_WINDOW_MS = 15_000  # at least, and up to twice as long


@dataclass(frozen=True, slots=True)
class Summary:
    """What a look finds besides clients and groups; fields as in `Observation`."""

    at_ms: int
    policy: str
    virtual_time: float
    oldest_wait_ms: int
    prediction: float
    prediction_error: float
    replicas: tuple[ReplicaRow, ...] = ()
    sizes: Sizes = Sizes()  # noqa: RUF009 (a frozen value)


Totals = tuple[float, int, int, int]
"""Service, input, cached and output tokens."""
Standing = tuple[str, float]
"""The group a node stands in, and its counter there."""


@dataclass(slots=True)
class Look:
    """What one look found: what each client has used in all, and where the backlogged stand.

    (Plain tuples of plain values: Python's garbage collector does not have to look at them, and
    there may be 100,000.)
    """

    at_ms: int
    totals: dict[str, Totals] = field(default_factory=dict)
    nodes: dict[str, Standing] = field(default_factory=dict)


class FairWindow:
    """What those received that have been backlogged since a moment some time ago.

    Two such moments are kept. When the later one is `JAIN_WINDOW_MS` old it takes the place of the
    earlier. Each look: `begin`, `heed` of each backlogged node, `end`.
    """

    def __init__(self) -> None:
        self.since_ms = self._next_ms = 0
        self._then: dict[str, Standing] = {}
        self._next: dict[str, Standing] = {}
        self.begin()

    def begin(self) -> None:
        """A new look."""
        self._still: dict[str, Standing] = {}
        self._next_still: dict[str, Standing] = {}
        self._sums: dict[str, tuple[int, float, float]] = {}  # group -> n, sum, sum of squares

    def heed(self, node: str, parent: str, counter: float) -> None:
        """That node is backlogged."""
        at = self._next.get(node)
        if at is not None and at[0] == parent:
            self._next_still[node] = at
        at = self._then.get(node)
        if at is not None and at[0] == parent:
            self._still[node] = at
            received = max(0.0, counter - at[1])
            count, total, squares = self._sums.get(parent, (0, 0.0, 0.0))
            self._sums[parent] = (count + 1, total + received, squares + received * received)

    def end(self, at_ms: int, nodes: dict[str, Standing]) -> float | None:
        """Those were all. Jain's index of what they received, the lowest of any group's."""
        self._then, self._next = self._still, self._next_still
        sums = self._sums.values()
        jain = min(
            (total * total / (n * squares) for n, total, squares in sums if n > 1 and squares),
            default=None,
        )
        if at_ms - self._next_ms >= JAIN_WINDOW_MS:
            first = not self._next_ms
            self.since_ms, self._then = (at_ms, nodes) if first else (self._next_ms, self._next)
            self._next_ms, self._next = at_ms, nodes
        return jain


class _Largest:
    """Those with the largest keys, so many at most."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heap: list[tuple[float, str, ClientState]] = []

    def add(self, key: float, state: ClientState) -> None:
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, (key, state.client, state))
        elif self._size and key > self._heap[0][0]:
            heapq.heapreplace(self._heap, (key, state.client, state))

    def sorted(self) -> list[ClientState]:
        """The largest first."""
        return [state for *_, state in sorted(self._heap, reverse=True)]


class Comparison:
    """One look in the making, held against the one before."""

    def __init__(self, before: Look, at_ms: int, window: FairWindow, top: int) -> None:
        """window: of all looks of this observer. top: clients, and groups, that get rows for what
        they received; as many get one for what they wait for."""
        self._before = before
        self.look = Look(at_ms)
        self.backlogged: list[str] = []  # clients with something waiting
        self._seconds = max(1, at_ms - before.at_ms) / 1000
        self._window = window
        self._top = top
        self._rates = Rates()
        self._groups: defaultdict[str, Rates] = defaultdict(Rates)
        self._waiting = self._running = 0
        self._served, self._queued = _Largest(top), _Largest(2 * top)
        self._extremes: dict[str, tuple[float, float, int]] = {}  # lowest, highest, how many
        window.begin()

    def add(self, page: Iterable[ClientState]) -> None:
        """Some more clients; one that comes twice counts once."""
        totals, before = self.look.totals, self._before.totals
        for state in page:
            name = state.client
            if name in totals:
                continue
            totals[name] = used = _totals(state)
            if before.get(name) != used:
                rates = self._used(state)
                self._rates += rates
                self._served.add(rates.service_per_s, state)
                for group in groups_within(state.group):
                    self._groups[group] += rates
            if state.waiting or state.running:
                self._waiting += state.waiting
                self._running += state.running
                self._queued.add(state.waiting, state)
            if state.waiting:
                self.backlogged.append(name)
                self._line_up(name, state.group, state.counter)

    def _used(self, state: ClientState) -> Rates:
        old = self._before.totals.get(state.client, (0.0, 0, 0, 0))
        used = zip(_totals(state), old, strict=True)
        return Rates(*(max(0.0, (now - then) / self._seconds) for now, then in used))

    def _line_up(self, node: str, parent: str, counter: float) -> None:
        self.look.nodes[node] = (parent, counter)
        if node.startswith(CLASS):  # classes go in strict order, their counters need not be level
            return
        self._window.heed(node, parent, counter)
        stood = self._before.nodes.get(node)
        if stood is not None and stood[0] == parent:
            low, high, count = self._extremes.get(parent, (counter, counter, 0))
            self._extremes[parent] = (min(low, counter), max(high, counter), count + 1)

    def observation(
        self,
        summary: Summary,
        groups: Iterable[GroupState],
        *,
        pool: str,
        observer: str,
        settings: QueueSettings,
        weights: Mapping[str, float],
    ) -> Observation:
        """Return what the look shows. weights: of clients, as far as known."""
        groups = list(groups)
        for group in groups:
            if group.waiting:
                self._line_up(group.group, parent_of_group(group.group), group.counter)
        since_ms = self._window.since_ms or summary.at_ms
        jain = self._window.end(summary.at_ms, self.look.nodes)
        gaps = (high - low for low, high, count in self._extremes.values() if count > 1)
        known = [weights[name] for name in self.backlogged if name in weights]
        known += [group.weight for group in groups if group.waiting]
        told = [replica.facts for replica in summary.replicas]
        bounds, seen = Bounds(), None
        if summary.policy == VTC.name:  # under others nothing is promised
            seen = seen_bound(summary.sizes, settings.burst)
            bounds = bounds_of(told, settings, min(known, default=1.0), summary.prediction)
        rows, others = self._client_rows(weights)
        return Observation(
            at_ms=summary.at_ms,
            interval_ms=round(self._seconds * 1000),
            pool=pool,
            observer=observer,
            policy=summary.policy,
            virtual_time=summary.virtual_time,
            waiting=self._waiting,  # of the same reads as the rows, so that these add up to it
            running=self._running,
            backlogged=len(self.backlogged),
            known=len(self.look.totals),
            credits=sum(replica.credits for replica in summary.replicas),
            oldest_wait_ms=summary.oldest_wait_ms,
            prediction=summary.prediction,
            prediction_error=summary.prediction_error,
            rates=self._rates,
            gap=max(gaps, default=None),
            bound=bounds.stated,
            paper_bound=bounds.paper,
            bound_seen=_least(seen, bounds.stated),
            jain=jain,
            jain_ms=summary.at_ms - since_ms,
            replicas=summary.replicas,
            clients=rows,
            others=others,
            groups=self._group_rows(groups),
        )

    def _client_rows(self, weights: Mapping[str, float]) -> tuple[tuple[ClientRow, ...], Others]:
        chosen = {state.client: state for state in self._served.sorted()}
        rest = [state for state in self._queued.sorted() if state.client not in chosen]
        chosen |= {state.client: state for state in rest[: self._top]}
        rows = tuple(
            ClientRow(
                name,
                state.group.removesuffix("/"),
                weights.get(name),
                state.counter,
                state.waiting,
                state.running,
                state.service,
                self._used(state),
            )
            for name, state in chosen.items()
        )
        others = Others(
            len(self.look.totals) - len(rows),
            self._waiting - sum(row.waiting for row in rows),
            self._running - sum(row.running for row in rows),
            self._rates - sum((row.rates for row in rows), Rates()),
        )
        return rows, others

    def _group_rows(self, groups: list[GroupState]) -> tuple[GroupRow, ...]:
        rows = [
            GroupRow(
                state.group.removesuffix("/"),
                state.weight,
                state.counter,
                state.waiting,
                state.running,
                self._groups.get(state.group, Rates()),
            )
            for state in groups
        ]
        most = ((row.rates.service_per_s, row.waiting, i) for i, row in enumerate(rows))
        return tuple(rows[i] for *_, i in heapq.nlargest(self._top, most))


def _least(*bounds: float | None) -> float | None:
    """The smallest that is known."""
    return min((bound for bound in bounds if bound is not None), default=None)


def _totals(state: ClientState) -> Totals:
    return (state.service, state.input_tokens, state.cached_tokens, state.output_tokens)
