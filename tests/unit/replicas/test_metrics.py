"""What replicas export, to a module that keeps what it is told instead of Ray's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from fairness.observe.call_meter import CallMeter
from fairness.observe.metric import NOTHING
from replicas.counter_lag import Lag
from replicas.lease_book import LeaseBook
from replicas.metrics import ReplicaMetrics
from tests.unit.router.test_metrics import Kept


def finished(queued_s: float, tokens: int, each_s: float) -> Any:
    """As vLLM tells it (`FinishedRequestStats`)."""
    return SimpleNamespace(
        queued_time=queued_s, num_generation_tokens=tokens, mean_time_per_output_token=each_s
    )


def test_one_observation_for_each_request_and_none_of_what_a_single_token_took() -> None:
    kept = Kept()
    ReplicaMetrics(kept, "m").ended([finished(0.5, 10, 0.02), finished(0.1, 1, 0.0)])
    pool = (("pool", "m"),)
    assert kept.observed["fairlane_engine_wait_seconds", pool] == [0.5, 0.1]
    assert kept.observed["fairlane_inter_token_seconds", pool] == [0.02]


def test_the_link_is_shown_and_preemptions_count_once() -> None:
    kept = Kept()
    metrics = ReplicaMetrics(kept, "m")
    assert kept.of("fairlane_batch_preemptions_total") == NOTHING
    link = SimpleNamespace(
        book=LeaseBook(lookahead=2, slots=4), kv_usage=0.25, preemptions=3, calls=CallMeter()
    )
    for _ in range(2):
        metrics.show(cast(Any, link), Lag(0.5, 70.0))
    assert kept.of("fairlane_batch_preemptions_total") == pytest.approx(3)
    assert kept.of("fairlane_kv_cache_usage_ratio") == 0.25
    assert kept.of("fairlane_replica_room") == 2
    assert kept.of("fairlane_counter_lag_seconds") == 0.5
    assert kept.of("fairlane_counter_lag_service") == 70.0
