"""Shares of a tree, against the oracle that pours level by level on its own."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairness.groups import ROOT
from fairness.what_if import Demand, fair_shares
from tests.unit.fairness.oracle import tree_max_min

ALL = math.inf
WEIGHTS = st.sampled_from([0.5, 1.0, 2.0, 3.0])
PLACES = [ROOT, "acme/", "acme/ml/", "acme/web/", "tiny/"]


def test_weights_hold_among_those_that_want_more():
    demands = [Demand("a", ROOT, 1, ALL), Demand("b", ROOT, 3, ALL)]
    assert fair_shares(demands, {}, 80) == pytest.approx({"a": 20, "b": 60})


def test_what_one_leaves_goes_to_its_neighbours_first():
    demands = [
        Demand("m", "acme/ml/", 1, 5),
        Demand("w", "acme/web/", 1, ALL),
        Demand("t", "tiny/", 1, ALL),
        Demand("alone", ROOT, 1, ALL),
    ]
    shares = fair_shares(demands, {"acme/": 2}, 80)
    assert shares == pytest.approx(
        {"m": 5, "w": 35, "t": 20, "alone": 20}
        | {"acme/": 40, "acme/ml/": 5, "acme/web/": 35, "tiny/": 20}
    )


def test_nobody_gets_more_than_it_wants():
    assert fair_shares([Demand("a", ROOT, 1, 7)], {}, 80) == {"a": 7}
    assert fair_shares([], {}, 80) == {}


def test_classes_have_their_floors_and_then_their_order():
    floors = {"class:high/": 0.0, "class:mid/": 0.2, "class:low/": 0.1}
    wants = {"h": 60.0, "m": math.inf, "l": math.inf}
    places = dict(zip(wants, floors, strict=True))

    def shares(**other):
        all_wants = wants | other
        demands = [Demand(name, places[name], 1, wanted) for name, wanted in all_wants.items()]
        found = fair_shares(demands, {}, 100, floors)
        assert all(found[places[name]] == found[name] for name in all_wants)
        return [found[name] for name in all_wants]

    assert shares() == [60, 30, 10]
    assert shares(h=math.inf) == [70, 20, 10]
    assert shares(h=0.0, m=30.0) == [0, 30, 70]
    assert shares(h=1.0, m=2.0, l=3.0) == [1, 2, 3]


@given(st.data())
def test_as_the_oracle_says(data):
    groups = {name: data.draw(WEIGHTS) for name in PLACES[1:]}
    demands = [
        Demand(
            f"c{n}", place, data.draw(WEIGHTS), data.draw(st.sampled_from([0.0, 3.0, 40.0, 1e9]))
        )
        for n, place in enumerate(data.draw(st.lists(st.sampled_from(PLACES), max_size=8)))
    ]
    paths = {
        demand.name: tuple(
            (name, groups[name], None) for name in PLACES[1:] if demand.parent.startswith(name)
        )
        for demand in demands
    }
    fair = tree_max_min(
        {demand.name: demand.wants for demand in demands},
        100.0,
        {demand.name: demand.weight for demand in demands},
        paths,
    )
    shares = fair_shares(demands, groups, 100.0)
    assert {demand.name: shares[demand.name] for demand in demands} == pytest.approx(fair, abs=1e-6)
