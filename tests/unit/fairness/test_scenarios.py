"""Fairness as it is lived: many scenarios, four demands of each.

1. Two clients that both wait never differ by more than the bound that `fairness.bounds` states.
2. In the long run everyone ends near its max-min share, as the oracle works it out.
3. No slot stays free while somebody waits, longer than messages and reports take.
4. Every request ends, once; nothing is left over; the queue has charged what was delivered.
"""

from dataclasses import replace

import pytest

from fairness.prediction import Prediction
from tests.unit.fairness.cluster import Shape
from tests.unit.fairness.scenarios import Flow, Outcome, Scenario, play

EQUALS = (Flow("a", held=30), Flow("b", held=30, output=(20, 80)))
LAGS = {"0": (0.0, 0.0, 0.0), "100 ms": (0.002, 0.01, 0.1), "1 s": (0.05, 0.1, 1.0)}


def lagging(lag: str, **shape) -> Shape:
    delay, report, charge = LAGS[lag]
    return Shape(delay_s=delay, report_s=report, charge_s=charge, **shape)


SCENARIOS = [
    Scenario("two overloading equals", EQUALS),
    Scenario(
        "weights 1 : 2",
        (Flow("a", held=30), Flow("b", held=30, weight=2), Flow("c", held=30, weight=0.5)),
    ),
    Scenario("a flooder and a polite client", (Flow("flood", held=200), Flow("polite", rate=2.0))),
    Scenario(
        "on and off: idle time is not saved up",
        (Flow("steady", held=30), Flow("onoff", held=30, on=10, off=10)),
        seconds=100,
    ),
    Scenario(
        "a newcomer after long",
        (Flow("old", held=30), Flow("older", held=30), Flow("new", held=30, start=60)),
        seconds=120,
    ),
    Scenario(
        "long prompts against chats",
        (
            Flow("papers", input=(400, 1000), output=(5, 20), held=20),
            Flow("chats", input=(10, 30), output=(30, 60), held=40),
        ),
        seconds=120,
    ),
    Scenario(
        "three levels of demand",
        (Flow("little", rate=1.0), Flow("some", rate=2.0), Flow("much", rate=30.0)),
        Shape(routers=2),
    ),
    Scenario(
        "many small clients and a large one",
        (Flow("large", held=60), *(Flow(f"small{n:02}", rate=0.1) for n in range(30))),
        Shape(replicas=2),
        off_fair=0.15,  # of so little, one request more or less in flight is much
    ),
    Scenario(
        "clients that leave",
        (
            Flow("a", held=30, leaves=0.5, patience=6),
            Flow("b", held=30, leaves=0.5, patience=0.3, output=(40, 80)),
            Flow("c", held=30),
        ),
        Shape(replicas=2, routers=2, delay_s=0.01),
    ),
    Scenario(
        "a client that reaches one router only",
        (Flow("near", held=30, routers=(0,)), Flow("far", held=30), Flow("wide", held=90)),
        Shape(replicas=2, routers=3),
    ),
    *(
        Scenario(
            f"{n} replicas",
            tuple(replace(flow, held=30 * n) for flow in EQUALS),
            Shape(replicas=n, routers=2),
            seconds=60 / max(1, n / 2),
        )
        for n in (1, 2, 4, 8)
    ),
    *(
        Scenario(f"charges {lag} late, {n} replicas", EQUALS, lagging(lag, replicas=n))
        for lag in LAGS
        for n in (1, 4)
    ),
    *(
        Scenario(
            f"predictions: {predictor} x {share}, {kind}",
            flows,
            Shape(replicas=2),
            Prediction(predictor, share, 0.9),
        )
        for predictor, share in (
            ("pool_average", 1.0),
            ("moving_average", 1.0),
            ("moving_average", 0.5),
            ("quantile", 1.0),
        )
        for kind, flows in {
            "good": (Flow("a", held=30, output=(30, 30)), Flow("b", held=30, output=(60, 60))),
            "bad": (Flow("a", held=30, output=(1, 80)), Flow("b", held=30, output=(1, 80))),
        }.items()
    ),
    Scenario(
        "bodies that say little of their tokens",
        (
            Flow("verbose", held=30, bytes_per_token=40),
            Flow("terse", held=30, bytes_per_token=1),
        ),
        Shape(replicas=2),
    ),
    *(
        Scenario(
            f"memory runs out before slots, filled {fills}",
            EQUALS,
            Shape(slots=32, memory=400, replicas=2, fills=fills),
        )
        for fills in ("at once", "doubling", "by lookahead")
    ),
    Scenario(
        "no lookahead, slow messages",
        EQUALS,
        Shape(lookahead=0, delay_s=0.03, replicas=2, routers=2, fills="at once"),
    ),
    Scenario(
        "a replica dies",
        EQUALS,
        Shape(replicas=3, routers=2),
        faults=((20.0, "replica", 1),),
    ),
    Scenario(
        "a router dies",
        (*EQUALS, Flow("lost", held=10, routers=(1,))),
        Shape(replicas=2, routers=2),
        faults=((20.0, "router", 1),),
    ),
]


@pytest.fixture(params=SCENARIOS, ids=lambda scenario: scenario.name, scope="module")
def outcome(request) -> Outcome:
    return play(request.param)


def test_clients_that_wait_stay_within_the_stated_bound(outcome):
    for pair, gap in outcome.witness.gaps.items():
        assert gap <= outcome.bound(*pair), pair


def test_nobody_gets_much_more_than_one_who_waits(outcome):
    if not outcome.scenario.faults:
        for pair, excess in outcome.witness.excess.items():
            assert excess <= outcome.excess_bound(*pair), pair


def test_everyone_ends_near_its_max_min_share(outcome):
    for client, share in outcome.off_fair.items():
        assert share <= outcome.scenario.off_fair, client


def test_no_slot_is_free_while_somebody_waits(outcome):
    assert outcome.witness.longest_idle <= outcome.idle_allowed + 1e-9


def test_every_request_ends_and_nothing_is_left_over(outcome):
    assert {request.outcome for request in outcome.requests} <= {"done", "left", "failed"}
    assert not any(outcome.leftovers.values())


def test_the_queue_has_charged_what_was_delivered(outcome):
    for client, service in outcome.witness.received.items():
        if outcome.scenario.faults:
            assert outcome.charged[client] <= service + 1e-6
        else:
            assert outcome.charged[client] == pytest.approx(service)
