"""What the elected observer of a pool exports. Other routers export none of it, so each is there
once in a cluster; for some seconds after a takeover twice (aggregate with `max by (pool)`).

Labels are bounded: rows of clients and groups are gauges, which vanish when they are not shown any
more, of the `top_clients` that received most; the rest is one row, `(others)`.
"""

from __future__ import annotations

from typing import Any

from fairness.observe.metric import Metric
from fairness.observe.observation import ClientRow, GroupRow, Observation, Others, Rates

OTHERS = "(others)"
KINDS = ("input", "cached", "output")

# name of the metric -> help, and what of an observation it is.
GAUGES = {
    "fairlane_pool_waiting_requests": ("Requests that wait in the queue.", "waiting"),
    "fairlane_pool_running_requests": ("Requests granted and not settled.", "running"),
    "fairlane_pool_backlogged_clients": ("Clients with a waiting request.", "backlogged"),
    "fairlane_pool_known_clients": ("Clients that the pool has ever heard of.", "known"),
    "fairlane_pool_credits": ("Requests that replicas would take now.", "credits"),
    "fairlane_pool_service_gap": (
        "Largest difference of counters (service by weight) of two that stand together and waited "
        "at the last two looks.",
        "gap",
    ),
    "fairlane_pool_service_gap_bound": (
        "What the gap cannot exceed, by what is certain of the pool (docs/theory.md).",
        "bound",
    ),
    "fairlane_pool_service_gap_bound_seen": (
        "What the gap cannot exceed, by the requests that did come (docs/theory.md).",
        "bound_seen",
    ),
    "fairlane_pool_paper_bound": ("The VTC paper's 2U for the pool's replicas.", "paper_bound"),
    "fairlane_pool_jain_index": (
        "Jain's index of service by weight, of those that waited all the time for 15 to 30 s; "
        "1 is equal shares.",
        "jain",
    ),
    "fairlane_pool_predicted_output_tokens": (
        "Output tokens that the pool expects of a request, its recent average.",
        "prediction",
    ),
    "fairlane_pool_prediction_error_tokens": (
        "Recent mean of |output - what was predicted at the grant|.",
        "prediction_error",
    ),
    "fairlane_pool_virtual_time": ("V, the level that newcomers are lifted to.", "virtual_time"),
}
POOL_GAUGES = {Metric("gauge", name, told): field for name, (told, field) in GAUGES.items()}
REPLICAS = Metric("gauge", "fairlane_pool_replicas", "Live replicas that take requests.")
OLDEST_WAIT = Metric(
    "gauge", "fairlane_pool_oldest_wait_seconds", "How long the request that came first waits."
)
INTERVAL = Metric(
    "gauge",
    "fairlane_pool_observation_interval_seconds",
    "Time between two looks at the pool; it grows with the number of clients.",
)
SERVICE = Metric(
    "counter", "fairlane_service_total", "Service given, as `cost` defines it (unweighted)."
)
TOKENS = Metric(
    "counter",
    "fairlane_tokens_total",
    "Tokens used. kind: input (cached ones included), cached (of the input, from the prefix "
    "cache), output.",
    ("pool", "kind"),
)
GROUP = ("pool", "group")
GROUP_SERVICE = Metric(
    "gauge",
    "fairlane_group_service_per_second",
    "Service of a group's clients, those of its teams included, over the last look.",
    GROUP,
)
GROUP_WAITING = Metric(
    "gauge", "fairlane_group_backlogged", "Clients and teams of a group that wait.", GROUP
)
GROUP_RUNNING = Metric(
    "gauge", "fairlane_group_running_requests", "Requests of a group granted, not settled.", GROUP
)
GROUP_WEIGHT = Metric("gauge", "fairlane_group_weight", "A group's share.", GROUP)
CLIENT = ("pool", "client", "group")
CLIENT_SERVICE = Metric(
    "gauge",
    "fairlane_client_service_per_second",
    "Service of a client over the last look. The rest is the client `(others)`.",
    CLIENT,
)
CLIENT_WAITING = Metric(
    "gauge", "fairlane_client_waiting_requests", "Requests of a client that wait.", CLIENT
)
CLIENT_RUNNING = Metric(
    "gauge",
    "fairlane_client_running_requests",
    "Requests of a client granted and not settled.",
    CLIENT,
)
CLIENT_COUNTER = Metric(
    "gauge",
    "fairlane_client_counter",
    "A client's virtual token counter (service by weight, lifted); comparable within its group.",
    CLIENT,
)
OBSERVER_METRICS = (
    *POOL_GAUGES, REPLICAS, OLDEST_WAIT, INTERVAL, SERVICE, TOKENS, GROUP_SERVICE, GROUP_WAITING,
    GROUP_RUNNING, GROUP_WEIGHT, CLIENT_SERVICE, CLIENT_WAITING, CLIENT_RUNNING, CLIENT_COUNTER,
)  # fmt: skip


class PoolMetrics:
    """Exports observations of one pool. O(rows) each."""

    def __init__(self, backend: Any, pool: str, top_clients: int) -> None:
        """backend: `ray.util.metrics`. top_clients: that get labels of their own; 0: no client
        has one."""
        self._top_clients = top_clients
        self._metrics = {
            metric: metric.made(backend, {"pool": pool}) for metric in OBSERVER_METRICS
        }
        SERVICE.begin(self._metrics[SERVICE])
        TOKENS.begin(self._metrics[TOKENS], *({"kind": kind} for kind in KINDS))

    def show(self, seen: Observation) -> None:
        """Export what this router has seen. To be called again for each observation, as gauges
        that are not set for some seconds vanish."""
        for metric, field in POOL_GAUGES.items():
            value = getattr(seen, field)
            if value is not None:
                self._set(metric, value)
        self._set(REPLICAS, sum(replica.taking for replica in seen.replicas))
        self._set(OLDEST_WAIT, seen.oldest_wait_ms / 1000)
        self._set(INTERVAL, seen.interval_ms / 1000)
        self._count(seen.rates, seen.interval_ms / 1000)
        for group in seen.groups:
            self._show_group(group)
        if self._top_clients:
            shown, rest = seen.clients[: self._top_clients], seen.clients[self._top_clients :]
            for row in shown:
                self._show_client(row)
            self._show_others(seen.others, rest)

    def _count(self, rates: Rates, seconds: float) -> None:
        if rates.service_per_s:
            self._metrics[SERVICE].inc(rates.service_per_s * seconds)
        used = (rates.input_per_s, rates.cached_per_s, rates.output_per_s)
        for kind, per_s in zip(KINDS, used, strict=True):
            if per_s:
                self._metrics[TOKENS].inc(per_s * seconds, {"kind": kind})

    def _show_group(self, row: GroupRow) -> None:
        tags = {"group": row.group}
        self._set(GROUP_SERVICE, row.rates.service_per_s, tags)
        self._set(GROUP_WAITING, row.waiting, tags)
        self._set(GROUP_RUNNING, row.running, tags)
        self._set(GROUP_WEIGHT, row.weight, tags)

    def _show_client(self, row: ClientRow) -> None:
        tags = {"client": row.client, "group": row.group}
        self._set(CLIENT_SERVICE, row.rates.service_per_s, tags)
        self._set(CLIENT_WAITING, row.waiting, tags)
        self._set(CLIENT_RUNNING, row.running, tags)
        self._set(CLIENT_COUNTER, row.counter, tags)

    def _show_others(self, others: Others, rest: tuple[ClientRow, ...]) -> None:
        tags = {"client": OTHERS, "group": ""}
        service = others.rates.service_per_s + sum(row.rates.service_per_s for row in rest)
        self._set(CLIENT_SERVICE, service, tags)
        self._set(CLIENT_WAITING, others.waiting + sum(row.waiting for row in rest), tags)
        self._set(CLIENT_RUNNING, others.running + sum(row.running for row in rest), tags)

    def _set(self, metric: Metric, value: float, tags: dict[str, str] | None = None) -> None:
        self._metrics[metric].set(value, tags)
