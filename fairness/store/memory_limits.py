"""Limits of levels, in memory; lua/limits.lua does the same. `fairness.limits` has the theory.

Cost: O(levels) for a submit and for an end of a limited request, nothing for others. A meter that
nothing is in flight at and that has been full for a minute is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from fairness.limits import COUNT_RETRY_MS, MINUTE_MS, NAMES, RATES, SLACK, Rates, Refusal

TIDY_LIMIT = 20  # meters looked at in a sweep

Level = tuple[str, Sequence[int]]
"""Client or group, its five limits (0: none)."""


@dataclass(slots=True)
class Meter:
    """What a level has spent, by the limits it last had, and what it has under way."""

    at: int
    requests: float = 0.0
    tokens: float = 0.0
    request_rate: int = 0
    token_rate: int = 0
    in_flight: int = 0
    queued: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Held:
    """What a request has reserved, and where."""

    tokens: int
    nodes: tuple[str, ...]
    in_flight: bool = True


class Meters:
    """One meter a limited level."""

    def __init__(self) -> None:
        self.meters: dict[str, Meter] = {}

    def refusal(self, levels: Sequence[Level], tokens: int, size: int, now: int) -> Refusal | None:
        """Which limit has no room for a request of so many tokens and bytes? Of several, the first
        of those that take longest."""
        found: Refusal | None = None
        for node, limits in levels:
            meter = self._meter(node, limits, now)
            spent = (meter.requests, meter.tokens, meter.in_flight, meter.queued, meter.bytes)
            needed = (1, tokens, 1, 1, size)
            for name, limit, had, more in zip(NAMES, limits, spent, needed, strict=True):
                wait = _wait_ms(name, limit, had, more) if limit else 0
                if wait and (found is None or wait > found.retry_after_ms):
                    remaining = max(0, math.floor(limit - had + SLACK))
                    found = Refusal(node, name, limit, remaining, wait)
        return found

    def reserve(self, levels: Sequence[Level], tokens: int, now: int) -> Held:
        """Let a request in. What waits is counted by `queue`."""
        for node, limits in levels:
            meter = self._meter(node, limits, now)
            if meter.request_rate:
                meter.requests += 1
            if meter.token_rate:
                meter.tokens += tokens
            meter.in_flight += 1
        return Held(tokens, tuple(node for node, _ in levels))

    def rates(self, levels: Sequence[Level], now: int) -> Rates:
        """What is left at these levels."""
        tightest = [0] * 6
        for node, limits in levels:
            meter = self._meter(node, limits, now)
            for at, limit, spent in ((0, limits[0], meter.requests), (3, limits[1], meter.tokens)):
                if not limit:
                    continue
                remaining = max(0, math.floor(limit - spent + SLACK))
                if not tightest[at] or remaining < tightest[at + 1]:
                    reset = math.ceil(spent * MINUTE_MS / limit)
                    tightest[at : at + 3] = (limit, remaining, reset)
        return Rates.of(tightest)

    def queue(self, held: Held, count: int, size: int, now: int) -> None:
        """So many more requests of so many bytes wait (below 0: fewer)."""
        for meter in self._of(held, now):
            meter.queued = max(0, meter.queued + count)
            meter.bytes = max(0, meter.bytes + count * size)

    def end_flight(self, held: Held, now: int) -> None:
        """It is in flight no more; its tokens are to come."""
        if held.in_flight:
            held.in_flight = False
            for meter in self._of(held, now):
                meter.in_flight = max(0, meter.in_flight - 1)

    def settle(self, held: Held, tokens: int, now: int) -> None:
        """It is over and has used so many tokens; with none it was free."""
        self.end_flight(held, now)
        for meter in self._of(held, now):
            if meter.token_rate:
                meter.tokens = max(0.0, meter.tokens + tokens - held.tokens)
            if tokens == 0:
                meter.requests = max(0.0, meter.requests - 1)

    def pay(self, node: str, tokens: int, now: int) -> None:
        """A request that was taken to be free has used tokens after all."""
        meter = self.meters.get(node)
        if meter is None:
            return
        _refill(meter, now)
        if meter.request_rate:
            meter.requests += 1
        if meter.token_rate:
            meter.tokens += tokens

    def tidy(self, now: int) -> None:
        """Drop meters that say nothing; some of them, in turn."""
        for node in list(islice(self.meters, TIDY_LIMIT)):
            meter = self.meters.pop(node)
            elapsed = now - meter.at
            spent = _left(meter.requests, meter.request_rate, elapsed)
            spent += _left(meter.tokens, meter.token_rate, elapsed)
            if meter.in_flight or spent or elapsed < MINUTE_MS:
                self.meters[node] = meter

    def _of(self, held: Held, now: int) -> Iterator[Meter]:
        return (self._at(node, now) for node in held.nodes)

    def _meter(self, node: str, limits: Sequence[int], now: int) -> Meter:
        """The meter, by the limits of now on."""
        meter = self._at(node, now)
        meter.request_rate, meter.token_rate = limits[0], limits[1]
        return meter

    def _at(self, node: str, now: int) -> Meter:
        meter = self.meters.get(node)
        if meter is None:
            meter = self.meters[node] = Meter(now)
        _refill(meter, now)
        return meter


def _refill(meter: Meter, now: int) -> None:
    elapsed = max(0, now - meter.at)
    meter.at = now
    meter.requests = _left(meter.requests, meter.request_rate, elapsed)
    meter.tokens = _left(meter.tokens, meter.token_rate, elapsed)


def _left(spent: float, rate: int, elapsed: int) -> float:
    return max(0.0, spent - rate * elapsed / MINUTE_MS) if rate else 0.0


def _wait_ms(name: str, limit: int, spent: float, needed: int) -> int:
    """Until there is room; 0: there is."""
    if name in RATES:
        excess = spent + min(needed, limit) - limit
        return math.ceil(excess * MINUTE_MS / limit) if excess > SLACK else 0
    return COUNT_RETRY_MS if spent + needed > limit else 0
