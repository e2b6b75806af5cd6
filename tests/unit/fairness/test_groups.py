"""Shares in a tree of groups, against the max-min oracle poured level by level.

`acme` has two teams and a client of its own, `tiny` one client; `alone` stands in no group.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairness.fair_queue import FairQueue
from fairness.groups import ROOT, Group, groups_within, is_group, parent_of_group
from fairness.policy import FCFS, VTC
from tests.unit.fairness.cluster import Shape
from tests.unit.fairness.oracle import tree_max_min
from tests.unit.fairness.scenarios import Flow, Outcome, Scenario, play

ACME, ML, WEB, TINY = (
    Group("acme/", 2.0),
    Group("acme/ml/", 3.0),
    Group("acme/web/"),
    Group("tiny/"),
)
TWO = Shape(replicas=2, routers=2)


def flood(client: str, *groups: Group, **how) -> Flow:
    return Flow(client, held=30, groups=groups, **how)


SCENARIOS = [
    Scenario("many of one against one of the other", (
        *(flood(f"a{n}", ACME) for n in range(6)), flood("t", TINY),
    ), TWO, seconds=80),
    Scenario("three levels, weights on each", (
        flood("m1", ACME, ML), flood("m2", ACME, ML, weight=2), flood("w", ACME, WEB),
        flood("t", TINY), flood("alone"),
    ), TWO, seconds=160),
    Scenario("what a client leaves goes to its team first", (
        Flow("m1", rate=0.5, groups=(ACME, ML)), flood("m2", ACME, ML), flood("w", ACME, WEB),
        flood("t", TINY),
    ), TWO, seconds=120),
    Scenario("what a team leaves goes to its organisation first", (
        Flow("m", rate=0.5, groups=(ACME, ML)), flood("w", ACME, WEB), flood("t", TINY),
    ), TWO, seconds=120),
    Scenario("an organisation that comes and goes", (
        flood("m", ACME, ML, on=10, off=10), flood("w", ACME, WEB, on=10, off=10),
        flood("t", TINY), flood("alone"),
    ), TWO, seconds=160),
]  # fmt: skip


@pytest.fixture(params=SCENARIOS, ids=lambda scenario: scenario.name, scope="module")
def outcome(request) -> Outcome:
    return play(request.param)


def test_everyone_ends_near_its_max_min_share_of_the_tree(outcome):
    for client, share in outcome.off_fair.items():
        assert share <= outcome.scenario.off_fair, (client, outcome.received, outcome.fair)


def test_no_slot_is_free_while_somebody_waits(outcome):
    assert outcome.witness.longest_idle <= outcome.idle_allowed + 1e-9


def test_every_request_ends_and_nothing_is_left_over(outcome):
    assert {request.outcome for request in outcome.requests} == {"done"}
    assert not any(outcome.leftovers.values())


def test_control_without_groups_the_many_have_it_all():
    crowd = SCENARIOS[0]
    flat = [Flow(flow.client, held=flow.held) for flow in crowd.flows]
    received = play(Scenario("flat", tuple(flat), crowd.shape, seconds=crowd.seconds)).received
    assert received["t"] < 0.2 * sum(received.values())
    in_groups = play(crowd).received
    assert in_groups["t"] == pytest.approx(sum(in_groups.values()) / 3, rel=0.1)


def test_the_oracle_pours_level_by_level():
    groups = {"m1": (ACME, ML), "m2": (ACME, ML), "w": (ACME, WEB), "t": (TINY,)}
    endless = dict.fromkeys([*groups, "alone"], 1e9)
    shares = tree_max_min(endless, 80, {}, groups)
    assert shares == pytest.approx({"m1": 15, "m2": 15, "w": 10, "t": 20, "alone": 20})
    shares = tree_max_min(endless | {"m1": 5, "m2": 5}, 80, {}, groups)
    assert shares == pytest.approx({"m1": 5, "m2": 5, "w": 30, "t": 20, "alone": 20})


PLACES = {"": ROOT, "a": ROOT, "b": "x/", "c": "x/", "d": "x/y/", "e": "z/"}


@given(st.data(), st.sampled_from([VTC(), FCFS()]))
def test_the_batchs_queue_goes_by_the_whole_path(data, policy):
    """Against a sorted list, while items come and go and counters rise and fall."""
    counters = dict.fromkeys([*PLACES, "x/", "x/y/", "z/"], 0.0)
    queue: FairQueue[int] = FairQueue(policy, counters.__getitem__, group_of=PLACES.__getitem__)
    line: list[tuple[str, int]] = []

    def rank(entry: tuple[str, int]) -> tuple:
        client, item = entry
        if isinstance(policy, FCFS):
            return (item,)
        path = [*groups_within(PLACES[client])][::-1]
        return (*((counters[node], node) for node in (*path, client)), (item,))

    for number in range(data.draw(st.integers(1, 30))):
        what = data.draw(st.sampled_from(["push", "push", "pop", "remove", "count", "policy"]))
        if what == "push":
            client = data.draw(st.sampled_from(sorted(PLACES)))
            queue.push(client, number)
            line.append((client, number))
        elif what == "pop" and line:
            first = min(line, key=rank)
            assert queue.pop() == first[1]
            line.remove(first)
        elif what == "remove" and line:
            entry = data.draw(st.sampled_from(line))
            queue.remove(entry[1])
            line.remove(entry)
        elif what == "count":
            node = data.draw(st.sampled_from(sorted(counters)))
            counters[node] += data.draw(st.integers(-3, 3))
            queue.reorder(node)
        elif what == "policy":
            policy = data.draw(st.sampled_from([VTC(), FCFS()]))
            queue.set_policy(policy)
        assert list(queue) == [item for _, item in sorted(line, key=rank)]
        assert not line or queue.peek() == min(line, key=rank)[1]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=4))
def test_names_say_where_groups_stand(parts):
    name = "/".join(parts) + "/"
    path = [*groups_within(name)]
    assert is_group(name)
    assert path[0] == name
    assert len(path) == len(parts)
    assert parent_of_group(name) == ("/".join(parts[:-1]) + "/" if len(parts) > 1 else ROOT)
