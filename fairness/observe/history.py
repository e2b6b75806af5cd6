"""What is remembered of observations: a point each, and one of every minute for longer. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

import orjson

from fairness.observe.observation import Observation, Rates, known_fields

POINT_CLIENTS = 20
COARSE_MS = 60_000


class ClientPoint(NamedTuple):
    """A client in a point of the history; units as in `Observation`."""

    service_per_s: float
    waiting: float
    counter: float


@dataclass(frozen=True, slots=True)
class Point:
    """An observation in short. Fields as in `Observation`; replicas: how many took requests;
    clients: those with rows, at most `POINT_CLIENTS`."""

    at_ms: int
    interval_ms: int
    policy: str
    waiting: float
    running: float
    backlogged: float
    credits: float
    replicas: int
    oldest_wait_ms: int
    rates: Rates
    gap: float | None
    bound: float | None
    jain: float | None
    clients: dict[str, ClientPoint] = field(default_factory=dict)
    bound_seen: float | None = None

    @classmethod
    def of(cls, seen: Observation) -> Point:
        """The point of an observation."""
        return cls(
            at_ms=seen.at_ms,
            interval_ms=seen.interval_ms,
            policy=seen.policy,
            waiting=seen.waiting,
            running=seen.running,
            backlogged=seen.backlogged,
            credits=seen.credits,
            replicas=sum(replica.taking for replica in seen.replicas),
            oldest_wait_ms=seen.oldest_wait_ms,
            rates=seen.rates,
            gap=seen.gap,
            bound=seen.bound,
            bound_seen=seen.bound_seen,
            jain=seen.jain,
            clients={
                row.client: ClientPoint(row.rates.service_per_s, row.waiting, row.counter)
                for row in seen.clients[:POINT_CLIENTS]
            },
        )

    def to_json(self) -> bytes:
        """Compact JSON."""
        return orjson.dumps(self, default=list)  # a ClientPoint as a list

    @classmethod
    def from_json(cls, text: bytes | str) -> Point:
        """Read `to_json`. Raises ValueError for anything else."""
        try:
            fields = orjson.loads(text)
            clients = {name: ClientPoint(*row) for name, row in fields["clients"].items()}
            rates = known_fields(Rates, fields["rates"])
            return known_fields(cls, fields | {"rates": rates, "clients": clients})
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"this is no point of a history: {error!r}") from error


class Coarse:
    """Gathers points until they cover `COARSE_MS`, then makes one of them."""

    def __init__(self) -> None:
        self._points: list[Point] = []

    def add(self, point: Point) -> Point | None:
        """The one of all since the last, if it is time."""
        self._points.append(point)
        if sum(point.interval_ms for point in self._points) < COARSE_MS:
            return None
        points, self._points = self._points, []
        return joined(points)


def joined(points: Sequence[Point]) -> Point:
    """One for all of these, oldest first: means by time, but the worst gap, index and wait; what
    held last of policy, replicas and bound; the clients that received most."""
    last = points[-1]
    length = [point.interval_ms for point in points]
    rates = Rates(
        *(
            fmean((getattr(point.rates, name) for point in points), length)
            for name in ("service_per_s", "input_per_s", "cached_per_s", "output_per_s")
        )
    )
    return Point(
        at_ms=last.at_ms,
        interval_ms=sum(length),
        policy=last.policy,
        waiting=fmean((point.waiting for point in points), length),
        running=fmean((point.running for point in points), length),
        backlogged=fmean((point.backlogged for point in points), length),
        credits=fmean((point.credits for point in points), length),
        replicas=last.replicas,
        oldest_wait_ms=max(point.oldest_wait_ms for point in points),
        rates=rates,
        gap=max((point.gap for point in points if point.gap is not None), default=None),
        bound=last.bound,
        bound_seen=last.bound_seen,
        jain=min((point.jain for point in points if point.jain is not None), default=None),
        clients=_clients(points, length),
    )


def _clients(points: Sequence[Point], length: Sequence[int]) -> dict[str, ClientPoint]:
    counters = {name: row.counter for point in points for name, row in point.clients.items()}
    absent = ClientPoint(0.0, 0.0, 0.0)
    rows = []
    for name, counter in counters.items():
        own = [point.clients.get(name, absent) for point in points]
        service = fmean((row.service_per_s for row in own), length)
        waiting = fmean((row.waiting for row in own), length)
        rows.append((name, ClientPoint(service, waiting, counter)))
    rows.sort(key=lambda row: row[1], reverse=True)
    return dict(rows[:POINT_CLIENTS])
