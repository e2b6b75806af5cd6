"""Fairness across pools: equal money, as far as the pools that clients use allow it."""

import random
from dataclasses import replace

import pytest

from tests.unit.fairness.cluster import Shape
from tests.unit.fairness.market import NO_LIMIT, Market, Watch, stall
from tests.unit.fairness.oracle import pools_max_min

SMALL = Shape(slots=3)
SECONDS = 40.0


def test_the_oracle_pours_the_scarcest_pools_first() -> None:
    both, a, b = frozenset("AB"), frozenset("A"), frozenset("B")
    assert pools_max_min({"A": 60, "B": 60}, {"x": both, "y": b}) == {"x": 60, "y": 60}
    assert pools_max_min({"A": 30, "B": 60}, {"x": both, "y": b}) == {"x": 45, "y": 45}
    assert pools_max_min({"A": 90, "B": 60}, {"x": both, "y": b}) == {"x": 90, "y": 60}
    three = {"x": both, "y": b, "z": a}
    assert pools_max_min({"A": 30, "B": 60}, three) == {"x": 30, "y": 30, "z": 30}
    assert pools_max_min({"A": 10, "B": 60}, three) == {"z": 10, "x": 30, "y": 30}
    assert pools_max_min({"A": 40, "B": 50}, three, {"x": 3}) == {"x": 54, "y": 18, "z": 18}


def two_and_one(price: float = 1.0) -> dict[str, object]:
    """x uses both pools, the others one: all can have the same if x leaves A to z and zz."""
    return {
        "A": stall([("x", 1), ("z", 1), ("zz", 1)], price, SMALL),
        "B": stall([("x", 1), ("y", 1)], 1.0, SMALL),
    }


def test_a_client_of_two_pools_and_one_of_one_receive_equal_money() -> None:
    market = Market(two_and_one())
    market.run(SECONDS)
    money = market.money()
    assert money == pytest.approx(market.fair_money(), rel=0.05)
    assert money["x"] == pytest.approx(money["y"], rel=0.05)


def test_without_prices_across_pools_each_pool_is_fair_by_itself() -> None:
    market = Market(two_and_one(), across=False)
    market.run(SECONDS)
    money = market.money()
    assert money["x"] > 1.5 * money["y"]
    in_b = market.tellers["B"].received
    assert in_b["x"] == pytest.approx(in_b["y"], rel=0.05)


@pytest.mark.parametrize("seed", range(12))
def test_money_is_shared_max_min(seed: int) -> None:
    chance = random.Random(seed)
    weight = {c: chance.choice((1.0, 1.0, 0.5, 2.0)) for c in ("a", "aa", "b", "bb", "x", "xx")}
    both = ["x", "xx"][: chance.randint(1, 2)]
    only = {"A": ["a", "aa"][: chance.randint(0, 2)], "B": ["b", "bb"][: chance.randint(1, 2)]}
    market = Market(
        {
            pool: stall(
                [(client, weight[client]) for client in (*both, *only[pool])],
                chance.choice((0.3, 1.0, 4.0)),
                Shape(
                    replicas=chance.randint(1, 2),
                    slots=chance.randint(2, 4),
                    step_s=chance.choice((0.01, 0.02)),
                    charge_s=chance.choice((0.05, 0.2)),
                ),
            )
            for pool in "AB"
        }
    )
    market.run(SECONDS, seed)
    money, fair = market.money(), market.fair_money()
    assert money == pytest.approx(fair, rel=0.06)


@pytest.mark.parametrize("seed", range(4))
def test_the_bound_across_pools_holds_at_every_moment(seed: int) -> None:
    watched = worst(Market(two_and_one(random.Random(seed).choice((0.3, 1.0, 4.0)))), seed)
    assert all(0 < part <= 1 for part in watched), watched


def test_pools_that_tell_each_other_nothing_break_the_bound() -> None:
    assert min(worst(Market(two_and_one(), across=False))) > 2


def worst(market: Market, seed: int = 1) -> list[float]:
    """The largest part of the bound that was reached, for each pool."""
    watches = [Watch(market, pool) for pool in market.stalls]
    market.watches += watches
    market.run(SECONDS, seed)
    return [watch.worst for watch in watches]


def test_a_debt_is_forgiven_beyond_its_limit() -> None:
    """x had dear A for itself, then comes to B, where y waits: behind y, for so much service."""
    debt, half = 2_000.0, SECONDS / 2
    first, then = stall([("x", 1)], 4.0, SMALL), stall([("x", 1), ("y", 1)], 1.0, SMALL)
    first = replace(first, flows=(replace(first.flows[0], held=3, stop=half),))
    then = replace(then, flows=(replace(then.flows[0], start=half), then.flows[1]))
    of_x = {}
    for limit in (0.0, debt, NO_LIMIT):
        market = Market({"A": first, "B": then}, debt=limit)
        market.run(SECONDS)
        of_x[limit] = market.tellers["B"].received["x"]
    assert of_x[NO_LIMIT] == 0  # three times as much money as y had in the same time is owed
    assert of_x[0.0] - of_x[debt] == pytest.approx(debt / 2, rel=0.2)
