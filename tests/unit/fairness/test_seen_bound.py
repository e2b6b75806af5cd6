"""What the requests that did come say of the gap (docs/theory.md, "By what has been seen").

Looked at after every call to the queue: the counters of two that wait are never further apart.
"""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, settings

from fairness.groups import Group
from fairness.observe.stated_bound import Sizes, seen_bound
from tests.unit.fairness.cluster import Cluster, Shape
from tests.unit.fairness.scenarios import Flow, Scenario, play
from tests.unit.fairness.test_bound_search import COMES_BACK, GREEDY, scenarios, without_lift

TEAMS = tuple(
    Flow(client, (5, 60), (5, 60), held=20, weight=weight, groups=groups)
    for client, weight, groups in (
        ("a", 1.0, (Group("acme/", 2.0), Group("acme/one/", 1.0))),
        ("b", 2.0, (Group("acme/", 2.0), Group("acme/two/", 0.5))),
        ("c", 1.0, (Group("other/", 1.0),)),
        ("d", 1.0, ()),
    )
)


class Watch:
    """Compares counters after each call. worst: the largest gap, as a part of its bound."""

    def __init__(self) -> None:
        self.worst = 0.0
        self.compared = 0

    def __call__(self, cluster: Cluster) -> None:
        apply = cluster.pool.apply

        def applied(sender, call):
            reply = apply(sender, call)
            self.look(cluster)
            return reply

        cluster.pool.apply = applied

    def look(self, cluster: Cluster) -> None:
        tree = cluster.pool._tree
        bound = seen_bound(Sizes(*cluster.pool.sizes(), tree.servers), cluster.settings.burst)
        for group in tree.groups.values():
            counters = [tree.counter(tree.node(name)) for name in group.backlogged]
            for one, other in combinations(counters, 2):
                assert bound is not None or one == other
                self.compared += 1
                self.worst = max(self.worst, abs(one - other) / bound if bound else 0.0)


def worst(scenario: Scenario, tamper=lambda cluster: None) -> float:
    watch = Watch()

    def both(cluster: Cluster) -> None:
        tamper(cluster)
        watch(cluster)

    play(scenario, both)
    return watch.worst


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(scenario=scenarios())
def test_no_cluster_and_load_break_the_bound(scenario: Scenario) -> None:
    assert worst(scenario) <= 1


def test_it_holds_on_every_level_of_groups() -> None:
    watch = Watch()
    play(Scenario("teams", TEAMS, Shape(replicas=2, slots=4, lookahead=1)), watch)
    assert watch.compared > 1000
    assert 0 < watch.worst <= 1


def test_it_is_not_far_from_the_gap() -> None:
    """Two that want all they can get: the gap is a fourth or so of it, whatever the pool's size."""
    flows = tuple(Flow(client, (20, 20), (40, 40), held=20) for client in "ab")
    assert worst(Scenario("near", flows, Shape(slots=1, lookahead=0))) > 0.15
    assert worst(Scenario("near", flows, Shape(slots=16, lookahead=4))) > 0.1


@pytest.mark.parametrize(
    ("flows", "shape", "tamper"),
    [
        (GREEDY, Shape(order="fcfs"), lambda cluster: None),
        (COMES_BACK, Shape(), without_lift),
    ],
    ids=["first come first served", "no lift"],
)
def test_control_what_is_broken_breaks_the_bound(flows, shape, tamper) -> None:
    assert worst(Scenario("control", flows, Shape(), seconds=120)) <= 1
    assert worst(Scenario("control", flows, shape, seconds=120), tamper) > 1
