"""How a sender's calls to the store go: counted here at the cost of an addition, exported later."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from fairness.observe.metric import Metric

CALLS = Metric(
    "counter",
    "fairlane_store_calls_total",
    "Calls to the store, each with what has gathered meanwhile; outcome: ok, failed.",
    ("pool", "sender", "outcome"),
)
CALL_SECONDS = Metric(
    "counter",
    "fairlane_store_call_seconds_total",
    "Time spent in calls to the store that succeeded, in all.",
    ("pool", "sender"),
)
SLOWEST_CALL = Metric(
    "gauge",
    "fairlane_store_call_slowest_seconds",
    "The slowest call to the store of the last two seconds, failed ones included.",
    ("pool", "sender"),
)
STORE_METRICS = (CALLS, CALL_SECONDS, SLOWEST_CALL)


class Calls(NamedTuple):
    """succeeded, failed: how many. seconds: of those that succeeded. slowest: of all."""

    succeeded: int = 0
    failed: int = 0
    seconds: float = 0.0
    slowest: float = 0.0


class CallMeter:
    """Counts since the last `take`."""

    __slots__ = ("_failed", "_seconds", "_slowest", "_succeeded")

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._succeeded = self._failed = 0
        self._seconds = self._slowest = 0.0

    def succeeded(self, seconds: float) -> None:
        """A call was answered."""
        self._succeeded += 1
        self._seconds += seconds
        self._slowest = max(self._slowest, seconds)

    def failed(self, seconds: float) -> None:
        """A call was not."""
        self._failed += 1
        self._slowest = max(self._slowest, seconds)

    def take(self) -> Calls:
        """What was counted since the last time."""
        calls = Calls(self._succeeded, self._failed, self._seconds, self._slowest)
        self._reset()
        return calls


class StoreMetrics:
    """Exports what a meter has counted."""

    def __init__(self, backend: Any, tags: Mapping[str, str]) -> None:
        """tags: pool and sender."""
        self._calls = CALLS.made(backend, tags)
        self._seconds = CALL_SECONDS.made(backend, tags)
        self._slowest = SLOWEST_CALL.made(backend, tags)
        CALLS.begin(self._calls, {"outcome": "ok"}, {"outcome": "failed"})

    def show(self, calls: Calls) -> None:
        """Some more calls."""
        for outcome, count in (("ok", calls.succeeded), ("failed", calls.failed)):
            if count:
                self._calls.inc(count, {"outcome": outcome})
        if calls.seconds:
            self._seconds.inc(calls.seconds)
        self._slowest.set(calls.slowest)
