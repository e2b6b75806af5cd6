"""Two looks at a pool make an observation. Pure: no clock, no store.

A look hands over its clients page by page (`Comparison.add`, O(page)), so that whoever looks can do
other things in between. Rates are differences of totals; a total that has shrunk (a store that lost
its data) counts as nothing used.

Counters are compared among those that stand together, on each level of groups. That of a node
which stays backlogged is not lifted, so its growth is the service it received, by its weight.
Jain's index is taken of that, over half a minute to a minute, since within one interval most
clients of a large pool receive nothing. (Who came back between two looks passes for one that
stayed.)
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from fairness.groups import ROOT, groups_within, parent_of_group
from fairness.measures import jain_index
from fairness.observe.observation import (
    ClientRow,
    GroupRow,
    Observation,
    Others,
    Rates,
    ReplicaRow,
)
from fairness.observe.stated_bound import bounds_of
from fairness.store.contract import ClientState, GroupState, QueueSettings

JAIN_WINDOW_MS = 30_000  # at least, and up to twice as long


@dataclass(frozen=True, slots=True)
class Summary:
    """What a look finds besides clients and groups; fields as in `Observation`."""

    at_ms: int
    policy: str
    virtual_time: float
    waiting: int
    oldest_wait_ms: int
    prediction: float
    prediction_error: float
    replicas: tuple[ReplicaRow, ...] = ()


@dataclass(slots=True)
class Look:
    """What one look found. nodes: those backlogged -> the group they stand in, their counter."""

    at_ms: int
    clients: dict[str, ClientState] = field(default_factory=dict)
    nodes: dict[str, tuple[str, float]] = field(default_factory=dict)


@dataclass(slots=True)
class FairWindow:
    """Counters of those that have been backlogged since a moment some time ago."""

    since_ms: int = 0
    counters: dict[str, tuple[str, float]] = field(default_factory=dict)
    next_since_ms: int = 0
    next_counters: dict[str, tuple[str, float]] = field(default_factory=dict)

    def heed(self, at_ms: int, nodes: dict[str, tuple[str, float]]) -> None:
        """Those are backlogged now. O(backlogged)."""
        self.counters = _still(self.counters, nodes)
        self.next_counters = _still(self.next_counters, nodes)
        if at_ms - self.next_since_ms >= JAIN_WINDOW_MS:
            self.since_ms, self.counters = self.next_since_ms, self.next_counters
            self.next_since_ms, self.next_counters = at_ms, dict(nodes)
            if not self.since_ms:  # the first
                self.since_ms, self.counters = at_ms, dict(nodes)

    def jain(self, nodes: dict[str, tuple[str, float]]) -> float | None:
        """Jain's index of what they received since, the lowest of those that stand together."""
        received = defaultdict(list)
        for node, (parent, counter) in self.counters.items():
            received[parent].append(max(0.0, nodes[node][1] - counter))
        return min(
            (jain_index(shares) for shares in received.values() if len(shares) > 1 and any(shares)),
            default=None,
        )


class Comparison:
    """One look in the making, held against the one before."""

    def __init__(self, before: Look, at_ms: int) -> None:
        self._before = before
        self.look = Look(at_ms)
        self._seconds = max(1, at_ms - before.at_ms) / 1000
        self._rates: dict[str, Rates] = {}  # of clients that used anything
        self._groups: defaultdict[str, Rates] = defaultdict(Rates)
        self._waiting = self._running = 0
        self._active: dict[str, ClientState] = {}

    def add(self, page: Iterable[ClientState]) -> None:
        """Some more clients; one that comes twice counts once."""
        clients, before = self.look.clients, self._before.clients
        for state in page:
            if state.client in clients:
                continue
            clients[state.client] = state
            old = before.get(state.client)
            if old == state and not state.waiting and not state.running:
                continue
            self._active[state.client] = state
            self._waiting += state.waiting
            self._running += state.running
            if state.waiting:
                self.look.nodes[state.client] = (state.group, state.counter)
            if old is None or old.service != state.service:
                rates = self._used(old, state)
                self._rates[state.client] = rates
                for group in groups_within(state.group):
                    self._groups[group] += rates

    def _used(self, old: ClientState | None, new: ClientState) -> Rates:
        if old is None:
            used = (new.service, new.input_tokens, new.cached_tokens, new.output_tokens)
        else:
            used = (
                new.service - old.service,
                new.input_tokens - old.input_tokens,
                new.cached_tokens - old.cached_tokens,
                new.output_tokens - old.output_tokens,
            )
        return Rates(*(max(0.0, amount / self._seconds) for amount in used))

    @property
    def backlogged(self) -> list[str]:
        """Clients with something waiting."""
        return [name for name, state in self._active.items() if state.waiting]

    def observation(
        self,
        summary: Summary,
        groups: Iterable[GroupState],
        *,
        pool: str,
        observer: str,
        window: FairWindow,
        settings: QueueSettings,
        weights: Mapping[str, float],
        top: int,
    ) -> Observation:
        """Return what the look shows. O(backlogged + active clients + groups).

        Args:
            window: that of all looks of this observer; it is taken on.
            weights: of clients, as far as known.
            top: clients, and groups, that get rows.
        """
        groups = list(groups)
        nodes = self.look.nodes
        nodes |= {
            state.group: (parent_of_group(state.group), state.counter)
            for state in groups
            if state.waiting
        }
        window.heed(summary.at_ms, nodes)
        rows, others = self._client_rows(weights, top)
        known = [*(weights[name] for name in self.backlogged if name in weights)]
        known += [state.weight for state in groups if state.waiting]
        told = [replica.facts for replica in summary.replicas]
        bounds = bounds_of(told, settings, min(known, default=1.0), summary.prediction)
        return Observation(
            at_ms=summary.at_ms,
            interval_ms=round(self._seconds * 1000),
            pool=pool,
            observer=observer,
            policy=summary.policy,
            virtual_time=summary.virtual_time,
            waiting=summary.waiting,
            running=self._running,
            backlogged=len(self.backlogged),
            known=len(self.look.clients),
            credits=sum(replica.credits for replica in summary.replicas),
            oldest_wait_ms=summary.oldest_wait_ms,
            prediction=summary.prediction,
            prediction_error=summary.prediction_error,
            rates=sum(self._rates.values(), Rates()),
            gap=self._gap(),
            bound=bounds.stated,
            paper_bound=bounds.paper,
            jain=window.jain(nodes),
            jain_ms=summary.at_ms - window.since_ms,
            replicas=summary.replicas,
            clients=rows,
            others=others,
            groups=self._group_rows(groups, top),
        )

    def _gap(self) -> float | None:
        extremes: dict[str, tuple[float, float, int]] = {}
        for node, (parent, counter) in self.look.nodes.items():
            if self._before.nodes.get(node, ("", 0.0))[0] != parent:
                continue
            low, high, count = extremes.get(parent, (counter, counter, 0))
            extremes[parent] = (min(low, counter), max(high, counter), count + 1)
        gaps = (high - low for low, high, count in extremes.values() if count > 1)
        return max(gaps, default=None)

    def _client_rows(
        self, weights: Mapping[str, float], top: int
    ) -> tuple[tuple[ClientRow, ...], Others]:
        none = Rates()
        most = heapq.nlargest(
            top,
            ((rates.service_per_s, name) for name, rates in self._rates.items()),
        )
        chosen = {name: self._active[name] for _, name in most}
        rest = ((s.waiting, s.client) for s in self._active.values() if s.client not in chosen)
        for waiting, name in heapq.nlargest(top, rest):
            if waiting or self._active[name].running:
                chosen[name] = self._active[name]
        rows = tuple(
            ClientRow(
                name,
                state.group.removesuffix("/"),
                weights.get(name),
                state.counter,
                state.waiting,
                state.running,
                state.service,
                self._rates.get(name, none),
            )
            for name, state in chosen.items()
        )
        others = Others(
            len(self.look.clients) - len(rows),
            self._waiting - sum(row.waiting for row in rows),
            self._running - sum(row.running for row in rows),
            sum((rates for name, rates in self._rates.items() if name not in chosen), none),
        )
        return rows, others

    def _group_rows(self, groups: list[GroupState], top: int) -> tuple[GroupRow, ...]:
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
            if state.group != ROOT
        ]
        most = ((row.rates.service_per_s, row.waiting, i) for i, row in enumerate(rows))
        return tuple(rows[i] for *_, i in heapq.nlargest(top, most))


def _still(
    counters: dict[str, tuple[str, float]], nodes: dict[str, tuple[str, float]]
) -> dict[str, tuple[str, float]]:
    """Those that are still backlogged, in the same group."""
    gone = ("", 0.0)
    return {node: at for node, at in counters.items() if nodes.get(node, gone)[0] == at[0]}
