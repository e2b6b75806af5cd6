"""What a replica exports: every second, and one observation for each request of its engine that
has ended. Nothing is done for a token: vLLM itself keeps the times that the means are made of.
"""

from __future__ import annotations

from typing import Any

from fairness.observe.call_meter import StoreMetrics
from fairness.observe.metric import STEPS, WAITS, Metric
from replicas.counter_lag import Lag
from replicas.queue_link import QueueLink

INTER_TOKEN = Metric(
    "histogram",
    "fairlane_inter_token_seconds",
    "Mean time between two output tokens of a request, in the engine; one observation a request.",
    buckets=STEPS,
)
ENGINE_WAIT = Metric(
    "histogram",
    "fairlane_engine_wait_seconds",
    "Time a request waits in the engine for its place in the batch, after its grant.",
    buckets=WAITS,
)
PREEMPTIONS = Metric(
    "counter",
    "fairlane_batch_preemptions_total",
    "Requests put out of the batch because its memory ran out; they wait again.",
)
KV_USE = Metric("gauge", "fairlane_kv_cache_usage_ratio", "How full the KV cache is, 0 to 1.")
LEASES = Metric("gauge", "fairlane_replica_leases", "Requests that this replica holds.")
UNSTARTED = Metric(
    "gauge",
    "fairlane_replica_unstarted_leases",
    "Of these: nothing of the request is in the batch yet.",
)
ROOM = Metric("gauge", "fairlane_replica_room", "Requests that this replica would take now.")
LAG_SECONDS = Metric(
    "gauge",
    "fairlane_counter_lag_seconds",
    "Age of the global counters that order this replica's batch, the worst of the last second.",
)
LAG_SERVICE = Metric(
    "gauge",
    "fairlane_counter_lag_service",
    "Service charged here to one client within that age, the most of the last second.",
)
REPLICA_METRICS = (
    INTER_TOKEN, ENGINE_WAIT, PREEMPTIONS, KV_USE, LEASES, UNSTARTED, ROOM, LAG_SECONDS,
    LAG_SERVICE,
)  # fmt: skip


class ReplicaMetrics:
    """Told of each engine step that ended requests, and of the link every second."""

    def __init__(self, backend: Any, pool: str) -> None:
        """backend: `ray.util.metrics`."""
        tags = {"pool": pool}
        self._metrics = {metric: metric.made(backend, tags) for metric in REPLICA_METRICS}
        self._store = StoreMetrics(backend, tags | {"sender": "replica"})
        self._preempted = 0
        PREEMPTIONS.begin(self._metrics[PREEMPTIONS])

    def ended(self, requests: list[Any]) -> None:
        """These requests of the engine have ended (vLLM's `FinishedRequestStats`)."""
        for request in requests:
            self._metrics[ENGINE_WAIT].observe(request.queued_time)
            if request.num_generation_tokens > 1:
                self._metrics[INTER_TOKEN].observe(request.mean_time_per_output_token)

    def show(self, link: QueueLink, lag: Lag) -> None:
        """The state of the link, once a second."""
        book = link.book
        for metric, value in (
            (LAG_SECONDS, lag.seconds),
            (LAG_SERVICE, lag.service),
            (KV_USE, link.kv_usage),
            (LEASES, book.open_leases),
            (UNSTARTED, book.unstarted),
            (ROOM, book.room),
        ):
            self._metrics[metric].set(value)
        if link.preemptions > self._preempted:
            self._metrics[PREEMPTIONS].inc(link.preemptions - self._preempted)
            self._preempted = link.preemptions
        self._store.show(link.calls.take())
