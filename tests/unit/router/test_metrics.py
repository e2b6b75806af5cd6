"""What routers export, to a module that keeps what it is told instead of Ray's."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest

from fairness.observe.call_meter import CallMeter
from fairness.observe.metric import NOTHING
from fairness.observe.observation import ClientRow, GroupRow, Observation, Others, Rates
from router.limits import QueueLimits
from router.metrics import RouterMetrics
from router.pool_metrics import PoolMetrics

Series = tuple[str, tuple[tuple[str, str], ...]]


class Kept:
    """Like `ray.util.metrics`; labels have to be those declared, and counters to rise."""

    def __init__(self) -> None:
        self.values: dict[Series, float] = {}
        self.observed: defaultdict[Series, list[float]] = defaultdict(list)
        kept = self

        class Base:
            def __init__(
                self, name: str, help: str, tag_keys: tuple[str, ...], boundaries: Any = None
            ) -> None:
                self.name, self.keys, self.tags = name, set(tag_keys), {}

            def set_default_tags(self, tags: dict[str, str]) -> None:
                assert set(tags) <= self.keys
                self.tags = tags

            def series(self, tags: dict[str, str] | None) -> Series:
                labels = self.tags | (tags or {})
                assert set(labels) == self.keys, (self.name, labels)
                return self.name, tuple(sorted(labels.items()))

        class Counter(Base):
            def inc(self, value: float, tags: dict[str, str] | None = None) -> None:
                assert value > 0
                series = self.series(tags)
                kept.values[series] = kept.values.get(series, 0) + value

        class Gauge(Base):
            def set(self, value: float, tags: dict[str, str] | None = None) -> None:
                kept.values[self.series(tags)] = value

        class Histogram(Base):
            def observe(self, value: float, tags: dict[str, str] | None = None) -> None:
                kept.observed[self.series(tags)].append(value)

        self.Counter, self.Gauge, self.Histogram = Counter, Gauge, Histogram

    def of(self, name: str, **labels: str) -> float | None:
        return self.values.get((name, tuple(sorted({"pool": "m", **labels}.items()))))

    def clients(self) -> set[str]:
        return {dict(labels)["client"] for _, labels in self.values if "client" in dict(labels)}


class Queue:
    limits = QueueLimits(requests=7)
    requeued = 0
    waiting = 3
    waiting_bytes = 99
    store_alive = True
    degraded = False

    def __init__(self) -> None:
        self.calls = CallMeter()


def test_requests_are_counted_and_handed_over_at_once() -> None:
    kept, queue = Kept(), Queue()
    metrics = RouterMetrics(kept, {"m": queue})
    for outcome in ("ok", "ok", "gone"):
        metrics.ended("m", outcome)
    metrics.refused("queue_full")
    metrics.waited("m", 0.25)
    metrics.first_token("m", 0.5)
    queue.requeued = 2
    queue.calls.succeeded(0.5)
    queue.calls.failed(2.0)
    assert kept.of("fairlane_requests_total", outcome="ok") == NOTHING
    for _ in range(2):
        metrics.flush()  # the second time there is nothing new
        assert kept.of("fairlane_requests_total", outcome="ok") == pytest.approx(2)
        assert kept.of("fairlane_requests_total", outcome="failed") == NOTHING
        assert kept.of("fairlane_requeued_requests_total") == pytest.approx(2)
        calls = {"sender": "router", "outcome": "failed"}
        assert kept.of("fairlane_store_calls_total", **calls) == pytest.approx(1)
        refused = kept.values["fairlane_refused_requests_total", (("reason", "queue_full"),)]
        assert refused == pytest.approx(1)
    assert list(kept.observed.values()) == [[0.25], [0.5]]


def test_the_state_of_the_router_is_shown_each_time() -> None:
    kept, queue = Kept(), Queue()
    metrics = RouterMetrics(kept, {"m": queue})
    metrics.flush()
    assert kept.of("fairlane_store_up") == 1 and kept.of("fairlane_degraded") == 0
    assert kept.of("fairlane_queue_limit", limit="requests") == 7
    assert (kept.of("fairlane_waiting_requests"), kept.of("fairlane_waiting_bytes")) == (3, 99)
    queue.store_alive, queue.degraded, metrics.configuration_refused = False, True, True
    queue.calls.failed(2.0)
    metrics.flush()
    assert kept.of("fairlane_store_up") == 0 and kept.of("fairlane_degraded") == 1
    assert kept.of("fairlane_store_call_slowest_seconds", sender="router") == 2.0
    assert kept.values["fairlane_configuration_refused", ()] == 1
    metrics.flush()
    assert kept.of("fairlane_store_call_slowest_seconds", sender="router") == 0


def seen(*clients: ClientRow, **more: Any) -> Observation:
    fields: dict[str, Any] = {
        "at_ms": 5000, "interval_ms": 2000, "pool": "m", "observer": "r", "policy": "vtc",
        "virtual_time": 1.0, "waiting": 10, "running": 2, "backlogged": 3, "known": 5,
        "credits": 0, "oldest_wait_ms": 1500, "prediction": 20.0, "prediction_error": 4.0,
        "rates": Rates(100.0, 20.0, 0.0, 40.0), "gap": 12.0, "bound": 50.0, "paper_bound": None,
        "jain": None, "jain_ms": 0, "clients": clients,
    }  # fmt: skip
    return Observation(**(fields | more))


def row(name: str, service_per_s: float, waiting: int = 1) -> ClientRow:
    return ClientRow(name, "", 1.0, 7.0, waiting, 1, 9.0, Rates(service_per_s))


def test_a_pool_as_it_was_seen() -> None:
    kept = Kept()
    metrics = PoolMetrics(kept, "m", top_clients=5)
    groups = (GroupRow("acme/ml", 2.0, 3.0, 4, 5, Rates(60.0)),)
    for _ in range(2):
        metrics.show(seen(row("alice", 80.0), groups=groups))
    assert kept.of("fairlane_pool_waiting_requests") == 10
    assert kept.of("fairlane_pool_oldest_wait_seconds") == 1.5
    assert kept.of("fairlane_pool_service_gap") == 12.0
    assert kept.of("fairlane_pool_jain_index") is None  # unknown is not 0
    assert kept.of("fairlane_service_total") == pytest.approx(2 * 200)
    assert kept.of("fairlane_tokens_total", kind="output") == pytest.approx(2 * 80)
    assert kept.of("fairlane_group_service_per_second", group="acme/ml") == 60.0


def test_only_so_many_clients_have_labels_and_the_others_are_summed() -> None:
    kept = Kept()
    clients = [row("a", 50.0), row("b", 30.0, waiting=2), row("c", 15.0, waiting=4)]
    others = Others(7, waiting=8, running=9, rates=Rates(5.0))
    PoolMetrics(kept, "m", top_clients=1).show(seen(*clients, others=others))
    assert kept.clients() == {"a", "(others)"}
    rest = {"client": "(others)", "group": ""}
    assert kept.of("fairlane_client_service_per_second", **rest) == 50.0
    assert kept.of("fairlane_client_waiting_requests", **rest) == 14
    assert kept.of("fairlane_client_running_requests", **rest) == 11


def test_no_client_has_a_name_where_that_is_configured() -> None:
    kept = Kept()
    PoolMetrics(kept, "m", top_clients=0).show(seen(row("alice", 80.0)))
    assert kept.clients() == set()
