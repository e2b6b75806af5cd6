"""What the dashboard shows: rows of panels, each with its PromQL. Pure data.

`$pool` and `$client` are the dashboard's variables, `$__rate_interval` is Grafana's. What comes
from the elected observer is taken by `max`: for some seconds after a takeover it is there twice.
"""

from __future__ import annotations

from dataclasses import dataclass

POOL = 'pool=~"$pool"'
CLIENT = f'{POOL}, client=~"$client"'
RATE = "[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class Query:
    """legend: Grafana's format, `{{label}}`."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """unit: Grafana's name of it. stacked: areas that add up. top: of the axis."""

    title: str
    about: str
    queries: tuple[Query, ...]
    unit: str = "short"
    stacked: bool = False
    top: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a title."""

    title: str
    panels: tuple[Panel, ...]


def _of_pool(metric: str, legend: str) -> Query:
    return Query(f"max by (pool) (ray_fairlane_{metric}{{{POOL}}})", legend)


def _summed(metric: str, legend: str, by: str = "pool", where: str = POOL) -> Query:
    """The rate of a counter."""
    return Query(f"sum by ({by}) (rate(ray_fairlane_{metric}{{{where}}}{RATE}))", legend)


def _quantiles(metric: str) -> tuple[Query, ...]:
    rate = f"sum by (pool, le) (rate(ray_fairlane_{metric}_bucket{{{POOL}}}{RATE}))"
    return tuple(
        Query(f"histogram_quantile({q}, {rate})", f"{{{{pool}}}} p{round(100 * q)}")
        for q in (0.5, 0.95, 0.99)
    )


def _share_of_limit(metric: str, limit: str) -> Query:
    here = f"max by (pool) (ray_fairlane_{metric}{{{POOL}}})"
    most = f'max by (pool) (ray_fairlane_queue_limit{{{POOL}, limit="{limit}"}})'
    return Query(f"{here} / {most}", f"{{{{pool}}}} {limit}")


def _by_client(metric: str) -> tuple[Query, ...]:
    series = f"ray_fairlane_client_{metric}{{{CLIENT}}}"
    return (Query(f"max by (pool, client) ({series})", "{{client}} ({{pool}})"),)


FAIRNESS = Row(
    "Fairness",
    (
        Panel(
            "Service by client",
            "Those that receive most; everybody else is (others).",
            _by_client("service_per_second"),
            stacked=True,
        ),
        Panel(
            "Virtual token counters",
            "Service by weight. Of those that wait the lowest is next, so these lines stay "
            "together.",
            _by_client("counter"),
        ),
        Panel(
            "Service gap and its bound",
            "The largest difference of two counters that should be level, what it cannot exceed, "
            "and the VTC paper's 2U for one queue of ideal replicas.",
            (
                _of_pool("pool_service_gap", "{{pool}} gap"),
                _of_pool("pool_service_gap_bound_seen", "{{pool}} bound"),
                _of_pool("pool_service_gap_bound", "{{pool}} bound, a priori"),
                _of_pool("pool_paper_bound", "{{pool}} 2U"),
            ),
        ),
        Panel(
            "Jain's index",
            "Of the service by weight of those that waited all the time for 15 to 30 s. 1: all "
            "received the same.",
            (_of_pool("pool_jain_index", "{{pool}}"),),
            "percentunit",
            top=1,
        ),
        Panel(
            "Service by group",
            "Organisations, and teams in them.",
            (
                Query(
                    f"max by (pool, group) (ray_fairlane_group_service_per_second{{{POOL}}})",
                    "{{group}} ({{pool}})",
                ),
            ),
        ),
        Panel(
            "Waiting by client",
            "Requests in the queue.",
            _by_client("waiting_requests"),
            stacked=True,
        ),
    ),
)
QUEUE = Row(
    "Queue",
    (
        Panel(
            "Backlog and credits",
            "Requests waiting and running, and how many more the replicas would take. Waiting and "
            "credits are never both above 0 for long.",
            (
                _of_pool("pool_waiting_requests", "{{pool}} waiting"),
                _of_pool("pool_running_requests", "{{pool}} running"),
                _of_pool("pool_credits", "{{pool}} credits"),
            ),
        ),
        Panel(
            "Clients",
            "Those with something waiting.",
            (_of_pool("pool_backlogged_clients", "{{pool}} backlogged"),),
        ),
        Panel("Waiting time", "From arrival to grant.", _quantiles("queue_wait_seconds"), "s"),
        Panel(
            "Longest wait now",
            "Of the request that came first.",
            (_of_pool("pool_oldest_wait_seconds", "{{pool}}"),),
            "s",
        ),
        Panel(
            "Time to first token",
            "Of streams, the wait included.",
            _quantiles("time_to_first_token_seconds"),
            "s",
        ),
        Panel(
            "Grants",
            "Requests handed to replicas, and those that had to be handed out anew.",
            (
                _summed("queue_wait_seconds_count", "{{pool}} grants"),
                _summed("requeued_requests_total", "{{pool}} again"),
            ),
            "reqps",
        ),
        Panel(
            "Requests by outcome",
            "rejected: 4xx of the model's server; gone: the client left.",
            (_summed("requests_total", "{{outcome}} ({{pool}})", by="pool, outcome"),),
            "reqps",
            stacked=True,
        ),
        Panel(
            "Refused by reason",
            "By the routers; the code in the error.",
            (_summed("refused_requests_total", "{{reason}}", by="reason", where=""),),
            "reqps",
        ),
        Panel(
            "Use of the queue limits",
            "Of the fullest router; at 100% it refuses (429).",
            (
                _share_of_limit("waiting_requests", "requests"),
                _share_of_limit("waiting_bytes", "bytes"),
            ),
            "percentunit",
        ),
    ),
)
REPLICAS = Row(
    "Replicas",
    (
        Panel(
            "Tokens",
            "input: of prompts, cached ones included.",
            (_summed("tokens_total", "{{kind}} ({{pool}})", by="pool, kind"),),
            "tps",
        ),
        Panel("Service", "All that was given.", (_summed("service_total", "{{pool}}"),), "short"),
        Panel(
            "Replicas",
            "That take requests.",
            (_of_pool("pool_replicas", "{{pool}}"),),
        ),
        Panel(
            "Time between tokens",
            "The mean of each request, in the engine.",
            _quantiles("inter_token_seconds"),
            "s",
        ),
        Panel(
            "Waiting in the engine",
            "After the grant, for a place in the batch.",
            _quantiles("engine_wait_seconds"),
            "s",
        ),
        Panel(
            "Leases",
            "Requests that the replicas hold; unstarted: not in a batch yet.",
            (
                Query(f"sum by (pool) (ray_fairlane_replica_leases{{{POOL}}})", "{{pool}} leases"),
                Query(
                    f"sum by (pool) (ray_fairlane_replica_unstarted_leases{{{POOL}}})",
                    "{{pool}} unstarted",
                ),
                Query(f"sum by (pool) (ray_fairlane_replica_room{{{POOL}}})", "{{pool}} room"),
            ),
        ),
        Panel(
            "KV cache",
            "Of the fullest replica.",
            (_of_pool("kv_cache_usage_ratio", "{{pool}}"),),
            "percentunit",
            top=1,
        ),
        Panel(
            "Preemptions",
            "Requests put out of a batch for want of memory.",
            (_summed("batch_preemptions_total", "{{pool}}"),),
            "cps",
        ),
        Panel(
            "Prediction",
            "Output tokens expected of a request, and how far off predictions have been.",
            (
                _of_pool("pool_predicted_output_tokens", "{{pool}} expected"),
                _of_pool("pool_prediction_error_tokens", "{{pool}} error"),
            ),
        ),
    ),
)
STORE = Row(
    "Store",
    (
        Panel(
            "Without the store",
            "Routers that do not reach it, and those that keep a queue of their own meanwhile.",
            (
                Query(f"sum by (pool) (1 - ray_fairlane_store_up{{{POOL}}})", "{{pool}} away"),
                Query(f"sum by (pool) (ray_fairlane_degraded{{{POOL}}})", "{{pool}} degraded"),
            ),
        ),
        Panel(
            "Calls",
            "Each carries what has gathered meanwhile.",
            (_summed("store_calls_total", "{{sender}} {{outcome}}", by="pool, sender, outcome"),),
            "ops",
        ),
        Panel(
            "Time of a call",
            "The mean, and the slowest.",
            (
                Query(
                    "sum by (pool, sender) "
                    f"(rate(ray_fairlane_store_call_seconds_total{{{POOL}}}{RATE})) / "
                    "sum by (pool, sender) "
                    f'(rate(ray_fairlane_store_calls_total{{{POOL}, outcome="ok"}}{RATE}))',
                    "{{sender}} mean",
                ),
                Query(
                    f"max by (pool, sender) (ray_fairlane_store_call_slowest_seconds{{{POOL}}})",
                    "{{sender}} slowest",
                ),
            ),
            "s",
        ),
        Panel(
            "Counter lag",
            "Age of the global counters that order the batches.",
            (_of_pool("counter_lag_seconds", "{{pool}}"),),
            "s",
        ),
        Panel(
            "Counter lag in service",
            "Charged to one client within that age, the most.",
            (_of_pool("counter_lag_service", "{{pool}}"),),
        ),
        Panel(
            "Time between two looks",
            "At the whole pool, by the elected router.",
            (_of_pool("pool_observation_interval_seconds", "{{pool}}"),),
            "s",
        ),
    ),
)
ROWS = (FAIRNESS, QUEUE, REPLICAS, STORE)
