"""The bench's arithmetic: percentiles, medians over rounds with their spread, ratios within a
round."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Round:
    """One measured window of one pool.

    requests: granted in it, and settled but for the last few. rate: of them, a second.
    *_us: CPU of server, router process (the mean one) and replica process, microseconds a
    request. p50_ms, p99_ms: from submit to grant; late_p99_ms: from the moment the request was
    due, so that a router too busy to submit in time is not forgiven. refused: over the limits of
    the router's line.
    """

    requests: int
    rate: float
    server_us: float
    router_us: float
    replica_us: float
    p50_ms: float
    p99_ms: float
    late_p99_ms: float
    refused: int = 0


@dataclass(frozen=True, slots=True)
class Figure:
    """A median over rounds, with the smallest and the largest of them."""

    median: float
    low: float
    high: float

    def show(self, digits: int = 0) -> str:
        """As text: the median, its spread behind it."""
        return f"{self.median:,.{digits}f} ({self.low:,.{digits}f}-{self.high:,.{digits}f})"


@dataclass(frozen=True, slots=True)
class ServerResult:
    """What was measured on one server.

    closed: by number of router processes, as fast as they can. offered: by known clients, at the
    offered rate, the pools in turn within each round. backlog: with many backlogged clients and
    few credits. bytes_per_idle_client: of the largest pool; None when none has idle clients.
    """

    server: str
    closed: Mapping[int, Sequence[Round]]
    offered: Mapping[int, Sequence[Round]]
    backlog: Sequence[Round]
    bytes_per_idle_client: float | None


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed; 0 of none."""
    if not values:
        return 0.0
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def figure(values: Sequence[float]) -> Figure:
    """Median and spread. Raises StatisticsError when there are no values."""
    return Figure(statistics.median(values), min(values), max(values))


def of(rounds: Sequence[Round], field: str) -> Figure:
    """Median and spread of one field over rounds."""
    return figure([getattr(r, field) for r in rounds])


def cost_ratio(many: Sequence[Round], few: Sequence[Round]) -> Figure:
    """Server CPU a request in one pool over that in another, within each round."""
    return figure([a.server_us / b.server_us for a, b in zip(many, few, strict=True)])


def summary(results: Sequence[ServerResult]) -> dict[str, Any]:
    """The numbers of the first server under plain names, then everything of all of them."""
    first = results[0]
    few, many = min(first.offered), max(first.offered)
    base = first.offered[few]
    numbers: dict[str, Any] = {
        "grants_per_s": round(of(first.closed[min(first.closed)], "rate").median),
        "p50_ms_at_5k": round(of(base, "p50_ms").median, 2),
        "p99_ms_at_5k": round(of(base, "p99_ms").median, 2),
        "server_us_per_request": round(of(base, "server_us").median, 1),
        "server_us_ratio_1m_vs_1k": round(cost_ratio(first.offered[many], base).median, 3),
        "bytes_per_idle_client": (
            None if first.bytes_per_idle_client is None else round(first.bytes_per_idle_client)
        ),
    }
    numbers["ratio_of_known_clients"] = [many, few]
    numbers["servers"] = {result.server: asdict(result) for result in results}
    return numbers
