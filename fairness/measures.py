"""How fair it was: service over time, gap, Jain index, percentiles.

Everything here is computed from **deliveries**: at this time this client received so many input
and output tokens. Where the deliveries come from (a simulator's clock, the arrival of chunks in a
load driver, an engine's step) makes no difference, so simulated and real runs are measured by the
same code.

Service is the VTC paper's (Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024,
section 3.1): ``w_p * input tokens + w_q * output tokens``, with ``w_p = 1`` and ``w_q = 2`` by
default (`fairness.cost`); with these, one unit is the cost of one input token. ``W_i(t1, t2)`` is
the service client i received in that window. Times are seconds on any one clock; windows are half
open, ``(start, end]``, so that adjacent windows add up.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from fairness.cost import ServiceCost

PAPER_COST = ServiceCost()


class Delivery(NamedTuple):
    """Tokens one client received at one moment. ``time`` in seconds, the rest in tokens."""

    time: float
    client: str
    input_tokens: float
    output_tokens: float

    def service(self, cost: ServiceCost = PAPER_COST) -> float:
        """Return the service of this delivery."""
        return cost.of(self.input_tokens, self.output_tokens)


@dataclass(frozen=True, slots=True)
class ServiceCurve:
    """A client's received service as a step function of time.

    ``times`` (seconds) rises strictly; ``totals[k]`` is the service received up to and including
    ``times[k]``. Before the first time it is 0.
    """

    times: tuple[float, ...]
    totals: tuple[float, ...]

    def at(self, time: float) -> float:
        """Return the service received up to and including ``time``."""
        k = bisect_right(self.times, time)
        return self.totals[k - 1] if k else 0.0

    def between(self, start: float, end: float) -> float:
        """Return ``W(start, end)``, the service received in ``(start, end]``."""
        return self.at(end) - self.at(start)

    def rate(self, start: float, end: float) -> float:
        """Return the mean service rate in ``(start, end]``, per second.

        Raises ValueError when the window is empty.
        """
        if end <= start:
            raise ValueError(f"a rate needs a window that has length, not ({start}, {end}]")
        return self.between(start, end) / (end - start)


def service_over_time(
    deliveries: Iterable[Delivery],
    *,
    clients: Collection[str] = (),
    cost: ServiceCost = PAPER_COST,
) -> dict[str, ServiceCurve]:
    """Return the service curve of every client, in order of names.

    ``deliveries`` may come in any order. A client named in ``clients`` that received nothing has
    an empty curve; clients that are not named but received something are included.
    """
    grouped: dict[str, list[Delivery]] = {name: [] for name in clients}
    for delivery in deliveries:
        grouped.setdefault(delivery.client, []).append(delivery)
    return {name: _curve(grouped[name], cost) for name in sorted(grouped)}


def _curve(deliveries: list[Delivery], cost: ServiceCost) -> ServiceCurve:
    times: list[float] = []
    totals: list[float] = []
    total = 0.0
    for time, at_once in _by_instant(deliveries):
        total += sum(delivery.service(cost) for delivery in at_once)
        times.append(time)
        totals.append(total)
    return ServiceCurve(tuple(times), tuple(totals))


def _by_instant(deliveries: Iterable[Delivery]) -> Iterator[tuple[float, Iterator[Delivery]]]:
    ordered = sorted(deliveries, key=attrgetter("time"))
    return groupby(ordered, key=attrgetter("time"))


def service_in(
    deliveries: Iterable[Delivery],
    start: float,
    end: float,
    *,
    clients: Collection[str] = (),
    cost: ServiceCost = PAPER_COST,
) -> dict[str, float]:
    """Return ``W_i(start, end)`` of every client, in order of names.

    A client named in ``clients`` that received nothing in the window has 0.
    """
    received = dict.fromkeys(clients, 0.0)
    for delivery in deliveries:
        if start < delivery.time <= end:
            before = received.get(delivery.client, 0.0)
            received[delivery.client] = before + delivery.service(cost)
    return {name: received[name] for name in sorted(received)}


def gap(
    deliveries: Iterable[Delivery],
    clients: Collection[str],
    start: float,
    end: float,
    *,
    weights: Mapping[str, float] | None = None,
    cost: ServiceCost = PAPER_COST,
) -> float:
    """Return the largest difference in service between clients at any moment of a window.

    That is the maximum over t in ``(start, end]`` of ``max_i W_i(start, t) - min_i W_i(start, t)``
    over ``clients``; with ``weights`` (1.0 where absent) each client's service is
    divided by its weight first. The clients must be backlogged throughout the window for it to be
    a statement about fairness: a client that did not ask is not owed anything. VTC promises at
    most ``2U`` (paper, theorem 4.4) plus what lag adds.

    Raises ValueError for fewer than two clients.
    """
    if len(set(clients)) < 2:
        raise ValueError("a gap is between at least two clients")
    weight = weights or {}
    received = dict.fromkeys(clients, 0.0)
    inside = (d for d in deliveries if start < d.time <= end and d.client in received)
    largest = 0.0
    for _, at_once in _by_instant(inside):
        for delivery in at_once:
            share = delivery.service(cost) / weight.get(delivery.client, 1.0)
            received[delivery.client] += share
        largest = max(largest, max(received.values()) - min(received.values()))
    return largest


def jain_index(shares: Iterable[float]) -> float:
    """Return Jain's fairness index of non-negative shares, between 1/n and 1.

    1 means all shares are equal, 1/n that one of n has everything; it does not depend on the
    unit. Give it service divided by weight. When nobody received anything all are equal: 1.
    Source: Jain, Chiu, Hawe, "A Quantitative Measure of Fairness and Discrimination", DEC-TR-301,
    1984.

    Raises ValueError for no shares and for a negative or infinite one.
    """
    values = list(shares)
    if not values:
        raise ValueError("the Jain index of no shares is undefined")
    if any(not math.isfinite(value) or value < 0 for value in values):
        raise ValueError("shares must be finite and not negative")
    largest = max(values)
    if largest == 0:
        return 1.0
    # The index does not depend on the unit: measured in the largest share nothing overflows.
    scaled = [value / largest for value in values]
    total = math.fsum(scaled)
    return total * total / (len(scaled) * math.fsum(value * value for value in scaled))


def relative_difference(values: Iterable[float]) -> float:
    """Return ``(largest - smallest) / largest`` of non-negative values: 0 equal, 1 one has nothing.

    "Service within 10%" means at most 0.1 here. All zero is equal. Raises ValueError for no values.
    """
    numbers = list(values)
    if not numbers:
        raise ValueError("no values to compare")
    largest = max(numbers)
    return (largest - min(numbers)) / largest if largest > 0 else 0.0


def percentile(values: Iterable[float], q: float) -> float:
    """Return the q-th percentile (0 <= q <= 100), interpolating linearly between neighbours.

    The unit is that of the values. The same definition as NumPy's default (Hyndman and Fan's
    type 7). Raises ValueError for no values and for q outside its range.
    """
    return percentiles(values, (q,))[0]


def percentiles(values: Iterable[float], qs: Sequence[float]) -> tuple[float, ...]:
    """Return several percentiles of the same values, sorting them once; see ``percentile``."""
    if any(not 0 <= q <= 100 for q in qs):
        raise ValueError(f"percentiles lie between 0 and 100, not {qs}")
    ordered = sorted(values)
    if not ordered:
        raise ValueError("percentiles of no values are undefined")
    return tuple(_interpolate(ordered, q) for q in qs)


def _interpolate(ordered: Sequence[float], q: float) -> float:
    position = q / 100 * (len(ordered) - 1)
    lower = math.floor(position)
    upper = min(lower + 1, len(ordered) - 1)
    fraction = position - lower
    if fraction == 0:
        return ordered[lower]
    # Clamped: rounding must not carry the result outside its two neighbours.
    between = ordered[lower] * (1 - fraction) + ordered[upper] * fraction
    return min(max(between, ordered[lower]), ordered[upper])
