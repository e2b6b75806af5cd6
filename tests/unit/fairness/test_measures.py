"""Measures of fairness: known small cases, and properties over random deliveries."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairness.cost import ServiceCost
from fairness.measures import (
    Delivery,
    gap,
    jain_index,
    percentile,
    percentiles,
    relative_difference,
    service_in,
    service_over_time,
)

CLIENTS = ("alice", "bob", "carol")

tokens = st.integers(0, 1000)
# Few distinct times, so that deliveries fall together and on the borders of windows.
times = st.integers(0, 20).map(float)
deliveries = st.lists(
    st.builds(Delivery, times, st.sampled_from(CLIENTS), tokens, tokens), max_size=40
)
shares = st.lists(st.floats(0, 1e300), min_size=1, max_size=20)


def test_service_is_input_plus_twice_output_by_default() -> None:
    assert Delivery(0.0, "alice", 10, 3).service() == 16
    assert Delivery(0.0, "alice", 10, 3).service(ServiceCost(2, 5)) == 35


def test_a_curve_steps_at_each_delivery_and_holds_between() -> None:
    made = [Delivery(2.0, "alice", 0, 5), Delivery(1.0, "alice", 10, 0)]
    curve = service_over_time(made)["alice"]
    assert (curve.times, curve.totals) == ((1.0, 2.0), (10.0, 20.0))
    assert [curve.at(t) for t in (0.9, 1.0, 1.5, 2.0, 99.0)] == [0, 10, 10, 20, 20]
    assert curve.rate(0.0, 2.0) == 10.0


def test_a_rate_over_no_time_is_an_error() -> None:
    curve = service_over_time([], clients=["alice"])["alice"]
    with pytest.raises(ValueError, match="window"):
        curve.rate(1.0, 1.0)


def test_a_client_that_received_nothing_is_there_with_nothing() -> None:
    assert service_over_time([], clients=["bob"])["bob"].at(5.0) == 0.0
    assert service_in([], 0.0, 1.0, clients=["bob"]) == {"bob": 0.0}


def test_the_gap_is_the_largest_on_the_way_not_the_last() -> None:
    made = [
        Delivery(1.0, "alice", 30, 0),
        Delivery(2.0, "bob", 40, 0),
        Delivery(3.0, "alice", 10, 0),
    ]
    assert gap(made, ["alice", "bob"], 0.0, 3.0) == 30
    assert gap(made, ["alice", "bob"], 1.0, 3.0) == 40
    assert gap(made, ["alice", "bob"], 2.0, 3.0) == 10


def test_the_gap_sees_no_difference_inside_one_instant() -> None:
    made = [Delivery(1.0, "alice", 30, 0), Delivery(1.0, "bob", 30, 0)]
    assert gap(made, ["alice", "bob"], 0.0, 1.0) == 0


def test_the_gap_leaves_out_clients_that_were_not_named() -> None:
    made = [Delivery(1.0, "alice", 30, 0), Delivery(1.0, "carol", 9000, 0)]
    assert gap(made, ["alice", "bob"], 0.0, 1.0) == 30


def test_the_gap_counts_service_by_weight() -> None:
    made = [Delivery(1.0, "alice", 30, 0), Delivery(1.0, "bob", 10, 0)]
    assert gap(made, ["alice", "bob"], 0.0, 1.0, weights={"alice": 3.0}) == 0


def test_a_gap_of_one_client_is_an_error() -> None:
    with pytest.raises(ValueError, match="two clients"):
        gap([], ["alice", "alice"], 0.0, 1.0)


@given(deliveries, times, times, times)
def test_adjacent_windows_add_up(made: list[Delivery], a: float, b: float, c: float) -> None:
    start, middle, end = sorted((a, b, c))
    first = service_in(made, start, middle, clients=CLIENTS)
    second = service_in(made, middle, end, clients=CLIENTS)
    whole = service_in(made, start, end, clients=CLIENTS)
    assert whole == {name: first[name] + second[name] for name in sorted(CLIENTS)}


@given(deliveries, times, times)
def test_curves_and_sums_agree(made: list[Delivery], a: float, b: float) -> None:
    start, end = sorted((a, b))
    curves = service_over_time(made, clients=CLIENTS)
    assert service_in(made, start, end, clients=CLIENTS) == {
        name: curve.between(start, end) for name, curve in curves.items()
    }
    for curve in curves.values():
        assert all(x < y for x, y in itertools.pairwise(curve.times))
        assert all(x <= y for x, y in itertools.pairwise(curve.totals))


@given(deliveries, times, times)
def test_the_gap_is_what_looking_at_every_moment_finds(
    made: list[Delivery], a: float, b: float
) -> None:
    start, end = sorted((a, b))
    moments = [d.time for d in made if start < d.time <= end]
    seen = [service_in(made, start, t, clients=CLIENTS).values() for t in moments]
    expected = max((max(s) - min(s) for s in seen), default=0.0)
    assert gap(made, CLIENTS, start, end) == expected


@given(shares)
def test_the_jain_index_lies_between_one_nth_and_one(values: list[float]) -> None:
    index = jain_index(values)
    assert 1 / len(values) * (1 - 1e-9) <= index <= 1 + 1e-9


@given(st.floats(0, 1e300), st.integers(1, 50))
def test_equal_shares_have_index_one(share: float, n: int) -> None:
    assert jain_index([share] * n) == pytest.approx(1.0)


@given(st.floats(1e-300, 1e300), st.integers(1, 50))
def test_one_that_has_everything_gives_one_nth(share: float, n: int) -> None:
    assert jain_index([share] + [0.0] * (n - 1)) == pytest.approx(1 / n)


def test_the_jain_index_of_its_paper() -> None:
    # k of n get equal parts, the others nothing: the index is k / n.
    assert jain_index([20.0] * 3 + [0.0] * 2) == pytest.approx(0.6)


@pytest.mark.parametrize("values", [[], [-1.0, 1.0], [float("nan")], [float("inf")]])
def test_the_jain_index_refuses_what_it_can_not_judge(values: list[float]) -> None:
    with pytest.raises(ValueError, match="shares"):
        jain_index(values)


@pytest.mark.parametrize(
    ("values", "expected"), [([5.0], 0.0), ([0.0, 0.0], 0.0), ([90.0, 100.0], 0.1), ([0, 3], 1.0)]
)
def test_relative_difference(values: list[float], expected: float) -> None:
    assert relative_difference(values) == pytest.approx(expected)


def test_relative_difference_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no values"):
        relative_difference([])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(0, 100))
def test_percentiles_are_numpys(values: list[float], q: float) -> None:
    assert percentile(values, q) == pytest.approx(np.percentile(values, q), rel=1e-9, abs=1e-6)


@settings(deadline=None)
@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=30))
def test_percentiles_stay_between_smallest_and_largest_and_rise(values: list[float]) -> None:
    smallest, *between, largest = percentiles(values, (0, 10, 50, 90, 99, 100))
    assert (smallest, largest) == (min(values), max(values))
    assert between == sorted(between)
    assert all(smallest <= value <= largest for value in between)


def test_percentiles_refuse_nothing_and_nonsense() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)
    with pytest.raises(ValueError, match="between 0 and 100"):
        percentile([1.0], 101)
