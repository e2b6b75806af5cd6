"""What a router counts of requests, and how it is exported. `pool_metrics.py` has the pools' own.

A request costs two observations of a histogram (some microseconds each, in Ray) and a few additions
to plain counters, which `flush` hands over every two seconds; a token costs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

from fairness.observe.call_meter import CallMeter, StoreMetrics
from fairness.observe.metric import WAITS, Metric
from router.limits import QueueLimits
from router.meter import Meter

WATCHED_REASONS = ("queue_full", "unavailable", "internal_error")  # by alerts
OUTCOMES = ("ok", "rejected", "failed", "gone", "refused")
QUEUE_WAIT = Metric(
    "histogram",
    "fairlane_queue_wait_seconds",
    "Time from a request's arrival in the queue to its grant; its count is that of grants used.",
    buckets=WAITS,
)
FIRST_TOKEN = Metric(
    "histogram",
    "fairlane_time_to_first_token_seconds",
    "Time from a streamed request's arrival in the queue to the first bytes of its answer.",
    buckets=WAITS,
)
REQUESTS = Metric(
    "counter",
    "fairlane_requests_total",
    "Requests for the engine that have ended. outcome: ok, rejected (4xx of the model's server), "
    "failed (5xx, or cut in the middle), gone (the client left), refused (by the router).",
    ("pool", "outcome"),
)
REFUSED = Metric(
    "counter",
    "fairlane_refused_requests_total",
    "Requests that the router refused. reason: the code in the error, else the status.",
    ("reason",),
)
REQUEUED = Metric(
    "counter",
    "fairlane_requeued_requests_total",
    "Grants whose replica failed before the first byte; the request was granted anew.",
)
WAITING = Metric(
    "gauge", "fairlane_waiting_requests", "Requests that wait in this router for their grant."
)
WAITING_BYTES = Metric(
    "gauge", "fairlane_waiting_bytes", "Bodies of the requests that wait in this router."
)
LIMIT = Metric(
    "gauge",
    "fairlane_queue_limit",
    "What may wait in one router before it refuses more. limit: requests, bytes, "
    "requests_per_client, bytes_per_client.",
    ("pool", "limit"),
)
STORE_UP = Metric(
    "gauge", "fairlane_store_up", "1 while the store answers this router, 0 while it is away."
)
DEGRADED = Metric(
    "gauge",
    "fairlane_degraded",
    "1 while this router keeps the queue of its own requests, without the store.",
)
CONFIGURATION_REFUSED = Metric(
    "gauge",
    "fairlane_configuration_refused",
    "1 while this router keeps its configuration because the newest one is unsound.",
    (),
)
ROUTER_METRICS = (
    QUEUE_WAIT, FIRST_TOKEN, REQUESTS, REFUSED, REQUEUED, WAITING, WAITING_BYTES, LIMIT, STORE_UP,
    DEGRADED, CONFIGURATION_REFUSED,
)  # fmt: skip


class Queue(Protocol):
    """What is asked of a pool's `Turns`."""

    limits: QueueLimits
    calls: CallMeter
    requeued: int

    @property
    def waiting(self) -> int: ...
    @property
    def waiting_bytes(self) -> int: ...
    @property
    def store_alive(self) -> bool: ...
    @property
    def degraded(self) -> bool: ...


class _PoolMetrics:
    """One pool's metrics in this router."""

    def __init__(self, backend: Any, pool: str) -> None:
        tags = {"pool": pool}
        self.wait = QUEUE_WAIT.made(backend, tags)
        self.first_token = FIRST_TOKEN.made(backend, tags)
        self.requests = REQUESTS.made(backend, tags)
        self.requeued = REQUEUED.made(backend, tags)
        self.waiting = WAITING.made(backend, tags)
        self.waiting_bytes = WAITING_BYTES.made(backend, tags)
        self.limit = LIMIT.made(backend, tags)
        self.store_up = STORE_UP.made(backend, tags)
        self.degraded = DEGRADED.made(backend, tags)
        self.store = StoreMetrics(backend, tags | {"sender": "router"})
        self.requeued_before = 0
        REQUESTS.begin(self.requests, *({"outcome": outcome} for outcome in OUTCOMES))
        REQUEUED.begin(self.requeued)


class RouterMetrics(Meter):
    """Told of requests as they go; `flush` it every two seconds.

    Gauges have to be set again and again: Ray drops one that was not set for its report interval
    (10 s).
    """

    def __init__(self, backend: Any, pools: Mapping[str, Queue]) -> None:
        """backend: `ray.util.metrics`. pools: their queues."""
        self._queues = pools
        self._pools = {pool: _PoolMetrics(backend, pool) for pool in pools}
        self._refused = REFUSED.made(backend)
        REFUSED.begin(self._refused, *({"reason": reason} for reason in WATCHED_REASONS))
        self._configuration = CONFIGURATION_REFUSED.made(backend)
        self._ended: Counter[tuple[str, str]] = Counter()
        self._reasons: Counter[str] = Counter()
        self.configuration_refused = False

    def waited(self, pool: str, seconds: float) -> None:
        """A request's turn has come."""
        self._pools[pool].wait.observe(seconds)

    def first_token(self, pool: str, seconds: float) -> None:
        """A stream has begun."""
        self._pools[pool].first_token.observe(seconds)

    def ended(self, pool: str, outcome: str) -> None:
        """A request for the engine is over."""
        self._ended[pool, outcome] += 1

    def refused(self, reason: str) -> None:
        """The router has refused a request. reason: one of a fixed set."""
        self._reasons[reason] += 1

    def flush(self) -> None:
        """Hand over what was counted. O(pools)."""
        ended, self._ended = self._ended, Counter()
        for (pool, outcome), count in ended.items():
            self._pools[pool].requests.inc(count, {"outcome": outcome})
        reasons, self._reasons = self._reasons, Counter()
        for reason, count in reasons.items():
            self._refused.inc(count, {"reason": reason})
        self._configuration.set(int(self.configuration_refused))
        for pool, shown in self._pools.items():
            self._show(self._queues[pool], shown)

    @staticmethod
    def _show(queue: Queue, shown: _PoolMetrics) -> None:
        if queue.requeued > shown.requeued_before:
            shown.requeued.inc(queue.requeued - shown.requeued_before)
            shown.requeued_before = queue.requeued
        shown.waiting.set(queue.waiting)
        shown.waiting_bytes.set(queue.waiting_bytes)
        limits = queue.limits
        for name in ("requests", "bytes", "requests_per_client", "bytes_per_client"):
            shown.limit.set(getattr(limits, name), {"limit": name})
        shown.store_up.set(int(queue.store_alive))
        shown.degraded.set(int(queue.degraded))
        shown.store.show(queue.calls.take())
