"""The history of a pool as columns: what a chart draws, no more than a screen shows. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from fairness.observe.history import Point, joined

POINTS = 360  # a chart
CLIENTS = 8  # with a line of their own


@dataclass(frozen=True, slots=True)
class Span:
    """How far a chart looks back. coarse: by the points of every minute."""

    ms: int
    coarse: bool = False

    @property
    def step_ms(self) -> int:
        """The time that a point of the chart stands for, at least."""
        return self.ms // POINTS


SPANS = {"15m": Span(900_000), "1h": Span(3_600_000), "24h": Span(86_400_000, coarse=True)}


def thinned(points: Sequence[Point], step_ms: int) -> list[Point]:
    """One point for each step; gaps stay gaps."""
    steps = groupby(points, lambda point: point.at_ms // max(1, step_ms))
    return [joined(list(some)) for _, some in steps]


def columns(points: Sequence[Point], most: int = CLIENTS) -> dict[str, Any]:
    """The points by column; `clients` are those that received most in all, or waited for most,
    each with columns of their own, null where a point has no row of them."""
    return {
        "at_ms": [point.at_ms for point in points],
        "interval_ms": [point.interval_ms for point in points],
        "policy": points[-1].policy if points else None,
        **{
            name: [_short(getattr(point, name)) for point in points]
            for name in ("waiting", "running", "backlogged", "gap", "bound", "bound_seen", "jain")
        },
        **{
            name: [_short(getattr(point.rates, name)) for point in points]
            for name in ("service_per_s", "input_per_s", "output_per_s")
        },
        "clients": {name: _client(points, name) for name in _largest(points, most)},
    }


def _largest(points: Sequence[Point], most: int) -> list[str]:
    received: defaultdict[str, float] = defaultdict(float)
    waited: defaultdict[str, float] = defaultdict(float)
    for point in points:
        for name, row in point.clients.items():
            received[name] += row.service_per_s * point.interval_ms
            waited[name] += row.waiting * point.interval_ms
    names = sorted(received, key=lambda name: (-received[name], -waited[name], name))
    return names[:most]


def _client(points: Sequence[Point], name: str) -> dict[str, list[float | None]]:
    rows = [point.clients.get(name) for point in points]
    return {
        field: [None if row is None else _short(getattr(row, field)) for row in rows]
        for field in ("service_per_s", "waiting", "counter")
    }


def _short(number: float | None) -> float | None:
    """Six digits: what a counter's spread needs, of millions."""
    return None if number is None else float(f"{number:.9g}" if number > 1e6 else f"{number:.6g}")
