"""How far apart the service of clients gets while all of them wait: what VTC bounds.

**gap**: from the start of the clients' common backlog on, the largest ``max_i W_i - min_i W_i`` at
any moment. **worst pair**: over all pairs of clients and all windows within their common backlogs,
the largest ``|W_i - W_j|``: what the bound speaks of (docs/theory.md), and never less than the gap
of two clients. Both in service, divided by the clients' weights.

Service curves are straight between their knots, so looking just before and at each knot is looking
at all times.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from fairness.measures import PAPER_COST, jain_index
from loadtests.cost import Cost
from loadtests.measures.backlog import Intervals, backlogs, common_backlog
from loadtests.measures.delivered import Curve, Floats, service_curves
from loadtests.outcome import Run


@dataclass(frozen=True, slots=True)
class Gap:
    """The gap of clients over the longest time in which all of them wait.

    start, end: of that time, in seconds. largest: service. times, series: the gap over time, as a
    line to draw. jain: Jain's index of the service received in that time, by weight.
    """

    clients: tuple[str, ...]
    start: float
    end: float
    largest: float
    times: Floats
    series: Floats
    jain: float


@dataclass(frozen=True, slots=True)
class PairGap:
    """The two clients furthest apart while both waited, and by how much service."""

    clients: tuple[str, str]
    largest: float


def gap(run: Run, clients: Collection[str], *, cost: Cost = PAPER_COST) -> Gap | None:
    """Return the gap of these clients; None when they never all wait at one time.

    Raises:
        ValueError: fewer than two clients, or one that is not in the run.
    """
    names = tuple(sorted(set(clients)))
    if len(names) < 2:
        raise ValueError("a gap is between at least two clients")
    window = common_backlog(run, names)
    if window is None:
        return None
    start, end = window
    curves = service_curves(run, clients=names, cost=cost)
    moments = _knots(curves.values(), start, end)
    high_before, high_after = np.full((2, moments.size), -np.inf)
    low_before, low_after = np.full((2, moments.size), np.inf)
    totals = []
    for name, line in curves.items():
        weight = run.workload.weights.get(name, 1.0)
        base = line.at(start)
        before, after = (line.until(moments) - base) / weight, (line.at(moments) - base) / weight
        np.maximum(high_before, before, out=high_before)
        np.minimum(low_before, before, out=low_before)
        np.maximum(high_after, after, out=high_after)
        np.minimum(low_after, after, out=low_after)
        # Rounding may leave a hair below nothing.
        totals.append(max(0.0, float(after[-1])))
    # Interleaved, so that a jump is drawn as one.
    times = np.repeat(moments, 2)
    series = np.column_stack((high_before - low_before, high_after - low_after)).ravel()
    return Gap(names, start, end, float(series.max()), times, series, jain_index(totals))


def worst_pair(run: Run, *, cost: Cost = PAPER_COST) -> PairGap | None:
    """Return the largest difference between any two clients in any window in which both wait.

    None when no two clients ever wait at one time.
    """
    curves = service_curves(run, cost=cost)
    waits = backlogs(run)
    names = list(curves)
    worst: PairGap | None = None
    for k, one in enumerate(names):
        for other in names[k + 1 :]:
            both = waits[one] & waits[other]
            if not both.starts.size:
                continue
            weights = [run.workload.weights.get(name, 1.0) for name in (one, other)]
            largest = _largest_swing(curves[one], curves[other], both, *weights)
            if worst is None or largest > worst.largest:
                worst = PairGap((one, other), largest)
    return worst


def _largest_swing(
    one: Curve, other: Curve, both: Intervals, w_one: float, w_other: float
) -> float:
    """The largest change of ``W_one - W_other`` between two moments of one interval."""
    moments = np.unique(np.concatenate((one.times, other.times, both.starts, both.ends)))
    before = one.until(moments) / w_one - other.until(moments) / w_other
    after = one.at(moments) / w_one - other.at(moments) / w_other
    high, low = np.maximum(before, after), np.minimum(before, after)
    first = np.searchsorted(moments, both.starts)
    last = np.searchsorted(moments, both.ends)
    largest = 0.0
    for i, j in zip(first.tolist(), last.tolist(), strict=True):
        # What comes at the very start belongs to the time before.
        top = max(after[i], high[i + 1 : j + 1].max())
        bottom = min(after[i], low[i + 1 : j + 1].min())
        largest = max(largest, float(top - bottom))
    return largest


def _knots(curves: Collection[Curve], start: float, end: float) -> Floats:
    """All moments in ``(start, end]`` at which a curve has a knot, and the end."""
    knots = np.unique(np.concatenate([*(line.times for line in curves), [end]]))
    inside: Floats = knots[(knots > start) & (knots <= end)]
    return inside
