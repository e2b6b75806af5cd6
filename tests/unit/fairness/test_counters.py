"""Virtual token counters: charges, the lift, news from the global queue."""

import math

import pytest

from fairness.cost import ServiceCost
from fairness.counters import VirtualTokenCounters


@pytest.fixture
def counters() -> VirtualTokenCounters:
    return VirtualTokenCounters()


def test_service_is_the_papers_by_default():
    assert ServiceCost().of(10, 5) == 20
    assert ServiceCost(input_weight=0.5, output_weight=3).of(10, 5) == 20
    assert ServiceCost().of(10, 5, cached_tokens=4) == 16
    assert ServiceCost(cached_input_weight=0.5).of(10, 5, cached_tokens=4) == 18


@pytest.mark.parametrize(
    "weights", [(-1, 1), (1, math.inf), (math.nan, 1), (0, 0), (1, 2, -1), (1, 2, 3)]
)
def test_impossible_costs_are_refused(weights):
    with pytest.raises(ValueError, match="input_weight"):
        ServiceCost(*weights)


def test_a_charge_is_divided_by_the_weight(counters):
    counters.join("light", weight=1)
    counters.join("heavy", weight=4)
    counters.charge("light", 8)
    counters.charge("heavy", 8)
    assert (counters.counter("light"), counters.counter("heavy")) == (8, 2)
    assert (counters.charged("light"), counters.charged("heavy")) == (8, 2)


def test_a_refund_takes_a_charge_back_exactly(counters):
    counters.join("a", weight=3)
    counters.charge("a", 7)
    counters.charge("a", -7)
    assert counters.counter("a") == counters.charged("a") == 0


@pytest.mark.parametrize("weight", [0, -1, math.inf, math.nan])
def test_impossible_weights_are_refused(counters, weight):
    with pytest.raises(ValueError, match="weight"):
        counters.join("a", weight=weight)
    assert "a" not in counters


def test_the_first_client_starts_at_nothing(counters):
    counters.join("a")
    assert counters.counter("a") == 0


def test_a_newcomer_is_lifted_to_the_lowest_of_those_who_wait(counters):
    for client in ("a", "b"):
        counters.join(client)
    counters.charge("a", 50)
    counters.charge("b", 30)
    counters.join("c")
    assert counters.counter("c") == 30
    assert counters.charged("c") == 0, "a lift is not service"


def test_the_lift_sees_charges_and_refunds_made_while_waiting(counters):
    for client in ("a", "b"):
        counters.join(client)
    counters.charge("a", 50)
    counters.charge("b", 50)
    counters.charge("a", -20)
    counters.charge("b", -10)
    counters.join("c")
    assert counters.counter("c") == 30


def test_no_lift_is_to_less_than_an_earlier_one(counters):
    """As in the global queue: whoever was left alone for being no better off than a newcomer must
    not be better off than the next."""
    counters.join("a")
    counters.charge("a", 50)
    counters.join("b")
    counters.charge("a", -20)
    counters.join("c")
    assert counters.counter("c") == counters.counter("b") == 50


@pytest.mark.parametrize("burst", [-1, math.inf, math.nan])
def test_impossible_bursts_are_refused(burst):
    with pytest.raises(ValueError, match="burst"):
        VirtualTokenCounters(burst=burst)


def test_with_a_burst_who_comes_back_is_ahead_by_that_much_at_most():
    counters = VirtualTokenCounters(burst=30)
    counters.join("busy")
    counters.join("idle")
    assert counters.counter("busy") == counters.counter("idle") == 0, "there was no time to idle"
    counters.leave("idle")
    counters.charge("busy", 100)
    counters.join("idle")
    assert counters.counter("idle") == counters.counter("busy") - 30
    counters.leave("idle")
    counters.charge("busy", 10)
    counters.join("idle")
    assert counters.counter("idle") == counters.counter("busy") - 30
    counters.charge("idle", 25)
    counters.leave("idle")
    counters.join("idle")
    assert counters.counter("idle") == counters.counter("busy") - 5, "what it has used it has used"


def test_a_burst_is_counted_from_where_those_who_wait_are_not_from_who_is_ahead():
    counters = VirtualTokenCounters(burst=30)
    counters.join("busy")
    counters.charge("busy", 100)
    for client in ("first", "second", "third"):
        counters.join(client)
    assert {counters.counter(client) for client in ("first", "second", "third")} == {70}


def test_least_counter_first_does_not_lift(counters):
    counters.lifts = False
    counters.join("a")
    counters.charge("a", 10)
    counters.join("b")
    assert counters.counter("b") == 0


def test_a_lift_never_lowers(counters):
    counters.join("a")
    counters.charge("a", 100)
    counters.leave("a")
    counters.join("b", counter=10.0)
    counters.join("a")
    assert counters.counter("a") == 100


def test_with_nobody_waiting_the_lift_is_to_who_left_last_where_it_is_now(counters):
    for client in ("a", "b"):
        counters.join(client)
    counters.charge("b", 40)
    counters.leave("b")
    counters.charge("a", 5)
    counters.leave("a")
    counters.charge("a", 20)  # still running
    counters.join("c")
    assert counters.counter("c") == 25


def test_who_left_last_is_remembered_when_forgotten(counters):
    counters.join("a")
    counters.charge("a", 25)
    counters.leave("a")
    counters.forget("a")
    assert "a" not in counters
    counters.join("b")
    assert counters.counter("b") == 25


def test_a_backlogged_client_is_not_lifted_by_its_next_request(counters):
    counters.join("a")
    counters.join("b", counter=90.0)
    counters.charge("a", 10)
    counters.join("a")
    assert counters.counter("a") == 10


def test_a_client_that_waits_again_after_a_preemption_is_not_lifted(counters):
    counters.join("a")
    counters.leave("a")
    counters.join("b", counter=90.0)
    counters.rejoin("a")
    assert counters.counter("a") == 0
    with pytest.raises(KeyError):
        counters.rejoin("stranger")


def test_a_new_client_takes_its_global_counter(counters):
    counters.join("a", counter=500.0)
    counters.join("b", counter=20.0)
    assert (counters.counter("a"), counters.counter("b")) == (500, 20)


def test_a_global_counter_older_than_our_charges_only_ever_raises(counters):
    counters.join("a", counter=500.0)
    counters.charge("a", 60)
    counters.join("a", counter=520.0)  # read when it knew 20 of our 60
    assert counters.counter("a") == 560
    counters.join("a", counter=700.0)  # 640 of it at least are not ours
    assert counters.counter("a") == 700


def test_the_base_follows_the_global_queue_both_ways(counters):
    counters.join("a", counter=100.0)
    counters.charge("a", 10)
    counters.set_base("a", 300.0)
    assert counters.counter("a") == 310
    counters.set_base("a", 50.0)
    assert counters.counter("a") == 60
    counters.join("b")
    assert counters.counter("b") == 60, "the lift sees a base that went down"


def test_a_base_for_a_stranger_leaves_no_trace(counters):
    counters.set_base("stranger", 5.0)
    assert "stranger" not in counters
    assert counters.counter("stranger") == 0


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_numbers_that_would_break_the_order_are_refused(counters, number):
    counters.join("a")
    with pytest.raises(ValueError, match="finite"):
        counters.set_base("a", number)
    with pytest.raises(ValueError, match="finite"):
        counters.join("a", counter=number)


def test_a_backlogged_client_cannot_be_forgotten(counters):
    counters.join("a")
    with pytest.raises(ValueError, match="backlogged"):
        counters.forget("a")


def test_forgetting_releases_all_memory(counters):
    for number in range(1_000):
        client = f"c{number}"
        counters.join(client)
        counters.charge(client, 1)
        counters.leave(client)
        counters.forget(client)
    counters.forget("stranger")
    assert len(counters) == 0
    assert [len(level.backlog._heap) <= 16 for level in counters._levels.values()] == [True]
