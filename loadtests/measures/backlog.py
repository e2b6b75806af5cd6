"""Who waits when: a client is backlogged while a request of its has arrived and has no first token.

Fairness is owed to those who wait, so differences in service mean something only while everyone
compared is backlogged. A client's backlog is a set of intervals, kept as two sorted arrays (starts
and ends, in seconds) that neither touch nor overlap.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from loadtests.measures.delivered import Floats
from loadtests.outcome import Run


@dataclass(frozen=True, slots=True)
class Intervals:
    """Disjoint intervals in order of time. ``starts`` and ``ends`` in seconds, equally many."""

    starts: Floats
    ends: Floats

    @property
    def total(self) -> float:
        """Seconds in all of them."""
        return float(np.sum(self.ends - self.starts))

    def longest(self) -> tuple[float, float] | None:
        """Return start and end of the longest one, None without any."""
        if not self.starts.size:
            return None
        k = int(np.argmax(self.ends - self.starts))
        return float(self.starts[k]), float(self.ends[k])

    def __and__(self, other: Intervals) -> Intervals:
        """Return when both are."""
        starts, ends = [], []
        i = j = 0
        while i < self.starts.size and j < other.starts.size:
            start = max(self.starts[i], other.starts[j])
            end = min(self.ends[i], other.ends[j])
            if start < end:
                starts.append(start)
                ends.append(end)
            if self.ends[i] <= other.ends[j]:
                i += 1
            else:
                j += 1
        return Intervals(np.array(starts, dtype=float), np.array(ends, dtype=float))


def union(pairs: Iterable[tuple[float, float]]) -> Intervals:
    """Return the union of intervals, given as (start, end) in any order."""
    rows = np.array(sorted(pairs), dtype=float).reshape(-1, 2)
    rows = rows[rows[:, 1] > rows[:, 0]]
    if not rows.size:
        return Intervals(np.empty(0), np.empty(0))
    starts, reach = rows[:, 0], np.maximum.accumulate(rows[:, 1])
    # A new one begins where all before have ended.
    begins = np.concatenate(([True], starts[1:] > reach[:-1]))
    last = np.concatenate((begins[1:], [True]))
    return Intervals(starts[begins], reach[last])


def backlogs(run: Run) -> dict[str, Intervals]:
    """Return when each client of a run is backlogged, in order of names.

    A request that ends without a token waits until it ends.
    """
    waits: dict[str, list[tuple[float, float]]] = {name: [] for name in run.workload.clients}
    for outcome in run.outcomes:
        until = outcome.ended if outcome.first_token is None else outcome.first_token
        waits[outcome.request.client].append((outcome.request.at, until))
    return {name: union(pairs) for name, pairs in waits.items()}


def common_backlog(run: Run, clients: Collection[str]) -> tuple[float, float] | None:
    """Return the longest interval in which all these clients are backlogged, None if never.

    Raises:
        ValueError: no client is named, or one is not in the run.
    """
    known = backlogs(run)
    wrong = sorted(set(clients) - set(known))
    if wrong or not clients:
        raise ValueError(f"not clients of this run: {', '.join(wrong) or '(none named)'}")
    names = sorted(set(clients))
    common = known[names[0]]
    for name in names[1:]:
        common &= known[name]
    return common.longest()


def usually_backlogged(run: Run, *, share: float = 0.5) -> tuple[str, ...]:
    """Return the clients that are backlogged for at least this share of the workload's arrivals.

    These want more than they get; names are sorted.
    """
    first = run.workload.requests[0].at if run.workload.requests else 0.0
    length = run.workload.last_arrival - first
    window = Intervals(np.array([first]), np.array([run.workload.last_arrival]))
    return tuple(
        name
        for name, when in backlogs(run).items()
        if length > 0 and (when & window).total >= share * length
    )
