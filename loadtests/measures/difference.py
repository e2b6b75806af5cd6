"""The VTC paper's service difference, as its artifact computes it, constants included.

At ticks through the run, a window of a minute around each: how much less did clients get than the
one that got most, or than they asked for, whichever is less? Summed over clients this is the
**service difference** of the tick; the paper's tables give its maximum, average and variance over
the ticks. The average is the number to compare: the maximum of one algorithm in two recordings was
24.6 and 192.9.

To be comparable with the tables everything is as there, oddities too: 19 ticks from 58.5 s to
571.5 s whatever the workload's length; a request's *whole* service, input included, is spread
evenly between first token and end; requests that end within the first second or last less than
10 us are left out; refused and aborted requests count neither as received nor as asked for.
Source: Sheng et al., OSDI 2024, section 5; the scripts of Ying1123/VTC-artifact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairness.measures import PAPER_COST
from loadtests.cost import Cost
from loadtests.measures.delivered import Curve, Floats, curve
from loadtests.outcome import Outcome, Run

WARM_UP_S = 30.0
HALF_WINDOW_S = 30.0
HORIZON_S = 600.0
POINTS = 20
_FIRST_END_S = 1.0
_SHORTEST_S = 1e-5


@dataclass(frozen=True, slots=True)
class ServiceDifference:
    """Service difference over time, in service per second; ticks in seconds."""

    ticks: tuple[float, ...]
    series: tuple[float, ...]

    @property
    def average(self) -> float:
        """The mean over the ticks: the number to compare."""
        return float(np.mean(self.series))

    @property
    def maximum(self) -> float:
        """The largest of the ticks."""
        return max(self.series)

    @property
    def variance(self) -> float:
        """The variance over the ticks (of the population, not of a sample)."""
        return float(np.var(self.series))


@dataclass(frozen=True, slots=True)
class AccumulatedGap:
    """``max W - min W`` over all clients at each tick, in service since the warm-up."""

    ticks: tuple[float, ...]
    series: tuple[float, ...]

    @property
    def maximum(self) -> float:
        """The largest of the ticks."""
        return max(self.series)


def paper_ticks() -> Floats:
    """Return the 19 moments at which the paper looks, in seconds."""
    step = (HORIZON_S - WARM_UP_S) / POINTS
    ticks: Floats = WARM_UP_S + step * np.arange(1, POINTS, dtype=np.float64)
    return ticks


def service_difference(run: Run, *, cost: Cost = PAPER_COST) -> ServiceDifference:
    """Return the paper's service difference of a run.

    cost: of what is received (`loadtests.cost`; the paper's tables 3 and 4 have the profiled one);
    what is asked for is always ``input + 2 * output``, as there. Of R
    replicas under R copies of a workload, divide by R to compare with one.
    """
    ticks = paper_ticks()
    counted = _counted(run)
    received = np.stack(
        [
            line.at(ticks + HALF_WINDOW_S) - line.at(ticks - HALF_WINDOW_S)
            for line in _curves(run, counted, cost)
        ]
    )
    asked = _asked(run, counted, ticks)
    window = 2 * HALF_WINDOW_S
    received, asked = received / window, asked / window
    lacking = np.minimum(received.max(axis=0) - received, np.abs(asked - received))
    return ServiceDifference(tuple(ticks.tolist()), tuple(lacking.sum(axis=0).tolist()))


def accumulated_gap(
    run: Run, *, clients: Sequence[str] | None = None, cost: Cost = PAPER_COST
) -> AccumulatedGap:
    """Return how far apart the clients' service is at the paper's ticks, counted from 30 s on.

    It says something about fairness only while all of the clients are backlogged. Unlike
    `loadtests.measures.gap` it looks at 19 moments, not at all.
    """
    ticks = paper_ticks()
    names = run.workload.clients
    chosen = [k for k, name in enumerate(names) if clients is None or name in clients]
    lines = _curves(run, _counted(run), cost)
    totals = np.stack([lines[k].at(ticks) - lines[k].at(WARM_UP_S) for k in chosen])
    apart = totals.max(axis=0) - totals.min(axis=0)
    return AccumulatedGap(tuple(ticks.tolist()), tuple(apart.tolist()))


def _counted(run: Run) -> list[Outcome]:
    return [outcome for outcome in run.outcomes if outcome.ending == "done"]


def _curves(run: Run, outcomes: Sequence[Outcome], cost: Cost) -> list[Curve]:
    """One per client in order of names: each request's whole service, spread evenly."""
    parts: dict[str, list[tuple[float, float, float]]] = {name: [] for name in run.workload.clients}
    for outcome in outcomes:
        start, end = outcome.first_token, outcome.last_token
        if start is None or end is None or end < _FIRST_END_S or end - start < _SHORTEST_S:
            continue
        service = cost.of(outcome.input_tokens, outcome.output_tokens)
        parts[outcome.request.client].append((start, end, service / (end - start)))
    lines = []
    for rows in parts.values():
        start_end_rate = np.array(rows, dtype=float).reshape(-1, 3)
        starts, ends, rates = start_end_rate.T
        times = np.concatenate((starts, ends))
        lines.append(curve(times, np.zeros(times.size), np.concatenate((rates, -rates))))
    return lines


def _asked(run: Run, outcomes: Sequence[Outcome], ticks: Floats) -> Floats:
    """Service asked for by arrivals in the window of each tick: a row per client."""
    rows = []
    by_client: dict[str, list[tuple[float, float]]] = {name: [] for name in run.workload.clients}
    for outcome in outcomes:
        request = outcome.request
        service = PAPER_COST.of(request.input_tokens, request.output_tokens)
        by_client[request.client].append((request.at, service))
    for asked in by_client.values():
        at, services = np.array(sorted(asked), dtype=float).reshape(-1, 2).T
        total = np.concatenate(([0.0], np.cumsum(services)))
        until = np.searchsorted(at, ticks + HALF_WINDOW_S, side="right")
        since = np.searchsorted(at, ticks - HALF_WINDOW_S, side="left")
        rows.append(total[until] - total[since])
    return np.stack(rows)
