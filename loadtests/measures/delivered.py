"""When each client received how much: service curves of a run, as arrays.

A request's input counts with its first token; its output counts as coming evenly between first
and last token (`loadtests.outcome`). So a client's service W(t) is a line with jumps and bends,
which is kept by its knots: times, the value at each and the slope after it. One sort per client
answers any question about it, also for a hundred thousand requests.

Service is ``input + 2 * output`` tokens unless another cost is given (`loadtests.cost`). What a
request costs before its output, by that cost, is what counts with its first token.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fairness.measures import PAPER_COST
from loadtests.cost import Cost
from loadtests.outcome import Outcome, Run

Floats = npt.NDArray[np.float64]

_AT_ONCE_S = 1e-6
"""What takes no longer is a jump: a slope of it would drown others in rounding."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Service received over time. ``times`` rise strictly (seconds).

    before, after: the service just before and at each time; slopes: per second, until the next.
    """

    times: Floats
    before: Floats
    after: Floats
    slopes: Floats

    def at(self, moments: npt.ArrayLike) -> Floats:
        """Return the service received up to and including each moment."""
        return self._read(moments)

    def until(self, moments: npt.ArrayLike) -> Floats:
        """Return the service received before each moment, without what comes at that instant."""
        at = np.asarray(moments, dtype=float)
        if not self.times.size:
            return np.zeros_like(at)
        k = np.searchsorted(self.times, at, side="left")
        here = np.minimum(k, self.times.size - 1)
        inside = self._read(at)
        return np.where(self.times[here] == at, self.before[here], inside)

    def _read(self, moments: npt.ArrayLike) -> Floats:
        at = np.asarray(moments, dtype=float)
        if not self.times.size:
            return np.zeros_like(at)
        k = np.searchsorted(self.times, at, side="right") - 1
        known = np.maximum(k, 0)
        read = self.after[known] + self.slopes[known] * (at - self.times[known])
        return np.where(k >= 0, read, 0.0)


def curve(times: Floats, jumps: Floats, slopes: Floats) -> Curve:
    """Return the curve that at each time jumps by so much and changes its slope by so much.

    The times may come in any order and repeat.
    """
    knots, where = np.unique(times, return_inverse=True)
    jump = np.bincount(where, weights=jumps, minlength=knots.size)
    bend = np.bincount(where, weights=slopes, minlength=knots.size)
    # Service never falls: a slope below 0 is rounding.
    slope: Floats = np.maximum(np.cumsum(bend), 0.0)
    grown = np.zeros(knots.size)
    if knots.size:
        grown[1:] = np.cumsum(slope[:-1] * np.diff(knots))
    after = grown + np.cumsum(jump)
    return Curve(knots, after - jump, after, slope)


def service_curves(
    run: Run, *, clients: Collection[str] | None = None, cost: Cost = PAPER_COST
) -> dict[str, Curve]:
    """Return the service curve of each client of a run (of those named), in order of names.

    A client that received nothing has an empty curve.
    """
    names = run.workload.clients if clients is None else sorted(set(clients))
    received: dict[str, list[Outcome]] = {name: [] for name in names}
    for outcome in run.outcomes:
        if outcome.first_token is not None and outcome.request.client in received:
            received[outcome.request.client].append(outcome)
    return {name: _client_curve(received[name], cost) for name in names}


def _client_curve(outcomes: list[Outcome], cost: Cost) -> Curve:
    first = np.array([o.first_token for o in outcomes], dtype=float)
    last = np.array(
        [o.first_token if o.last_token is None else o.last_token for o in outcomes], dtype=float
    )
    inputs = np.array([cost.of(o.input_tokens, 0) for o in outcomes], dtype=float)
    alls = np.array([cost.of(o.input_tokens, o.output_tokens) for o in outcomes], dtype=float)
    outputs = alls - inputs
    lasts = last - first
    at_once = lasts <= _AT_ONCE_S
    rate = np.where(at_once, 0.0, outputs / np.where(at_once, 1.0, lasts))
    return curve(
        np.concatenate((first, last)),
        np.concatenate((inputs + np.where(at_once, outputs, 0.0), np.zeros(len(outcomes)))),
        np.concatenate((rate, -rate)),
    )
