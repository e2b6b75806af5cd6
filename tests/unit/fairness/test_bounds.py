"""The stated bound, by hand."""

import math
from dataclasses import replace

import pytest

from fairness.bounds import (
    PoolLimits,
    batch_commitment,
    committed_tokens,
    excess_bound,
    lost_with_a_replica,
    paper_bound,
    service_bound,
    uncharged,
    unearned,
)
from fairness.cost import ServiceCost

# One server as the paper's: requests go straight into the batch, counters are exact.
PAPER = PoolLimits(
    replicas=1,
    longest_input=100,
    longest_output=50,
    window=1_000,
    ahead=0,
    batch_tokens=600,
    underestimate=0,
    overestimate=0,
    lag_service=0,
)
# Two replicas with 4 slots and a lookahead of 2, nothing known of what bodies hold.
POOL = PoolLimits(replicas=2, longest_input=100, longest_output=50, window=6)


def test_the_papers_case_is_2u():
    assert uncharged(PAPER) == 2 * 600
    assert unearned(PAPER) == 0
    assert service_bound(PAPER) == paper_bound(PAPER) == 2 * 2 * 600


def test_with_weights_each_client_has_its_own_part_of_2u():
    assert service_bound(PAPER, 1, 4) == paper_bound(PAPER, 1, 4) == 1200 + 300
    assert service_bound(PAPER, 4, 4) == 2 * 300
    assert service_bound(PAPER, 4, 4) <= service_bound(PAPER, 1, 4) <= service_bound(PAPER, 1, 1)


def test_input_dearer_than_output_shares_the_memory_with_it():
    dear = replace(PAPER, window=2, cost=ServiceCost(3, 1))
    assert batch_commitment(dear) == 3 * 200 + 1 * 400
    assert batch_commitment(replace(dear, window=1_000)) == 3 * 600


def test_a_pool_is_committed_to_its_window():
    assert uncharged(POOL) == 2 * 6 * (100 + 2 * 50)
    assert unearned(POOL) == 2 * 6 * 100
    assert service_bound(POOL) == 2 * (2400 + 1200)


def test_known_prompts_leave_the_output_and_the_newest_request():
    known = replace(POOL, underestimate=0, overestimate=0)
    assert uncharged(known) == 2 * 6 * 2 * 50 + 100


def test_good_predictions_leave_what_goes_beyond_them():
    good = replace(POOL, underestimate=0, overestimate=0, reserved=40, beyond=10)
    assert uncharged(good) == 2 * 6 * 2 * 10 + (100 + 2 * 40)
    assert unearned(good) == 2 * 6 * (2 * 40 + 100)


def test_memory_bounds_a_replica_that_takes_little_beyond_it():
    small = replace(POOL, window=100, ahead=2, batch_tokens=600, lag_service=70)
    assert uncharged(small) == 2 * (1200 + 2 * 200 + 70)
    assert uncharged(replace(small, ahead=None)) == 2 * (1200 + 100 * 200 + 70) - 2 * 1270
    assert uncharged(replace(small, lag_service=None)) == 2 * 100 * 200


def test_the_lightest_client_sets_what_others_may_take_back():
    assert service_bound(POOL, 2, 2, lightest=1) == 2400 / 2 + 2400 / 2 + 2 * 1200
    assert service_bound(PAPER, 2, 2, lightest=1) == service_bound(PAPER, 2, 2)


def test_a_dead_replica_takes_what_it_had_not_said():
    assert lost_with_a_replica(POOL) == 6 * 200
    known = replace(POOL, lag_service=70)
    assert service_bound(known, deaths=2) == service_bound(known) + 140


def test_anyone_against_one_who_waits():
    assert excess_bound(PAPER) == 3 * 1200


def test_without_reserving_memory_more_is_promised_than_fits():
    # All ten may hold ten tokens; then the k longest share what the others leave.
    expected = 100 + sum(min(80, 100 / k) for k in range(1, 11))
    assert committed_tokens(100, 10, 80) == pytest.approx(expected)
    assert committed_tokens(100, 1, 10) == 110


@pytest.mark.parametrize(
    "wrong", [{"replicas": 0}, {"window": -1}, {"lag_service": math.inf}, {"reserved": math.nan}]
)
def test_impossible_limits_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(POOL, **wrong)


@pytest.mark.parametrize("weights", [(0, 1), (1, 0), (1, -1)])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(ValueError, match="above 0"):
        service_bound(POOL, *weights)
