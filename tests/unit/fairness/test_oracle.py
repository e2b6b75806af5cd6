"""The oracle is only worth something if it is right itself."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.fairness.oracle import Arrival, Given, fair_service, max_min

AMOUNT = st.floats(0, 1e6)
DEMANDS = st.dictionaries(st.sampled_from("abcdefgh"), AMOUNT, min_size=1)
WEIGHTS = st.fixed_dictionaries({client: st.floats(0.1, 10) for client in "abcdefgh"})


@pytest.mark.parametrize(
    ("demands", "capacity", "weights", "shares"),
    [
        ({"a": 10, "b": 10}, 10, {}, {"a": 5, "b": 5}),
        ({"a": 2, "b": 10}, 10, {}, {"a": 2, "b": 8}),
        ({"a": 2, "b": 10}, 100, {}, {"a": 2, "b": 10}),
        ({"a": 1, "b": 4, "c": 10}, 9, {}, {"a": 1, "b": 4, "c": 4}),
        ({"a": 1, "b": 5, "c": 10}, 9, {}, {"a": 1, "b": 4, "c": 4}),
        ({"a": 10, "b": 10}, 9, {"b": 2}, {"a": 3, "b": 6}),
        ({"a": 10, "b": 2}, 9, {"b": 2}, {"a": 7, "b": 2}),
        ({"a": 10, "b": 0}, 9, {"b": 2}, {"a": 9, "b": 0}),
        ({"a": 3}, 0, {}, {"a": 0}),
        ({}, 5, {}, {}),
    ],
)
def test_by_hand(demands, capacity, weights, shares):
    assert max_min(demands, capacity, weights) == pytest.approx(shares)


@given(DEMANDS, AMOUNT, WEIGHTS)
def test_all_is_given_and_nobody_gets_more_than_it_asks(demands, capacity, weights):
    shares = max_min(demands, capacity, weights)
    assert sum(shares.values()) == pytest.approx(
        min(capacity, sum(demands.values())), rel=1e-6, abs=1e-6
    )
    assert all(0 <= shares[c] <= demands[c] * (1 + 1e-9) + 1e-9 for c in demands)


@given(DEMANDS, AMOUNT, WEIGHTS)
def test_raising_anyone_means_lowering_someone_not_higher(demands, capacity, weights):
    shares = max_min(demands, capacity, weights)
    level = {client: shares[client] / weights[client] for client in demands}
    for client in demands:
        if shares[client] < demands[client] * (1 - 1e-6) - 1e-6:
            assert level[client] >= max(level.values()) * (1 - 1e-6) - 1e-6
            assert sum(shares.values()) >= capacity * (1 - 1e-6) - 1e-6


@given(DEMANDS, AMOUNT, WEIGHTS, st.floats(0.01, 100))
def test_the_unit_does_not_matter(demands, capacity, weights, unit):
    shares = max_min(demands, capacity, weights)
    in_unit = max_min({c: d * unit for c, d in demands.items()}, capacity * unit, weights)
    assert all(
        math.isclose(in_unit[c], shares[c] * unit, rel_tol=1e-6, abs_tol=1e-4) for c in demands
    )


@given(DEMANDS, AMOUNT, WEIGHTS, st.floats(0.01, 100))
def test_only_ratios_of_weights_matter(demands, capacity, weights, unit):
    shares = max_min(demands, capacity, weights)
    scaled = max_min(demands, capacity, {c: w * unit for c, w in weights.items()})
    assert all(math.isclose(scaled[c], shares[c], rel_tol=1e-6, abs_tol=1e-4) for c in demands)


@given(AMOUNT, st.integers(1, 4))
def test_a_client_of_weight_n_is_n_clients_of_weight_one(capacity, n):
    twins = {f"twin{k}": 1e5 for k in range(n)}
    heavy = max_min({"a": 2e5, "b": n * 1e5}, capacity, {"b": n})
    apart = max_min({"a": 2e5, **twins}, capacity)
    assert heavy["b"] == pytest.approx(sum(apart[twin] for twin in twins), abs=1e-3)


def test_over_time_who_comes_late_shares_from_then_on():
    given = Given([0, 10, 20], [0, 100, 200])
    got = fair_service([Arrival(0, "a", 500), Arrival(10, "b", 500)], given, 20)
    assert got == {"a": 150, "b": 50}


def test_over_time_idleness_is_not_saved_up():
    given = Given([0, 10, 20], [0, 100, 200])
    asks = [Arrival(0, "a", 500), Arrival(0, "b", 10), Arrival(10, "b", 500)]
    assert fair_service(asks, given, 20) == {"a": 140, "b": 60}


def test_over_time_weights_and_the_end():
    given = Given([5, 10, 50], [30, 60, 1000])
    asks = [Arrival(0, "a", 500), Arrival(0, "b", 500), Arrival(20, "c", 1)]
    assert fair_service(asks, given, 10, {"b": 2}) == {"a": 20, "b": 40}


@given(
    st.lists(st.tuples(st.integers(0, 50), st.sampled_from("abc"), st.integers(0, 100))),
    st.lists(st.integers(0, 30), min_size=51, max_size=51),
)
def test_over_time_everything_given_reaches_someone_who_asked(asks, steps):
    """Of a server that gives what it can: no more than was asked for by then."""
    arrivals = [Arrival(*ask) for ask in asks]
    totals, total = [], 0.0
    for time, step in enumerate(steps):
        asked = sum(a.service for a in arrivals if a.time < time)
        total = min(total + step, max(total, asked))
        totals.append(total)
    got = fair_service(arrivals, Given(range(51), totals), 50)
    assert sum(got.values()) == pytest.approx(total)
    for client, amount in got.items():
        assert amount <= sum(a.service for a in arrivals if a.client == client) + 1e-6
