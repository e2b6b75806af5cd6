"""Looking for a cluster and a load that break the stated bound, and showing that it can be broken.

`pytest -s` prints how near the search came; docs/theory.md says what longer searches found.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings, target
from hypothesis import strategies as st

from fairness.cost import ServiceCost
from fairness.prediction import Prediction
from tests.unit.fairness.cluster import Cluster, Shape
from tests.unit.fairness.scenarios import Flow, Scenario, play

EXAMPLES = 60
LENGTHS = st.tuples(st.sampled_from([1, 5, 20, 60]), st.sampled_from([0, 0, 5, 40])).map(
    lambda pair: (pair[0], pair[0] + pair[1])
)


@st.composite
def flows(draw, name: str) -> Flow:
    on_and_off = draw(st.sampled_from([(1e9, 0.0), (1e9, 0.0), (1.0, 1.0), (3.0, 0.5)]))
    return Flow(
        name,
        input=draw(LENGTHS),
        output=draw(LENGTHS),
        weight=draw(st.sampled_from([1.0, 1.0, 0.5, 3.0])),
        held=draw(st.sampled_from([4, 20, 40])),
        start=draw(st.sampled_from([0.0, 0.0, 2.0])),
        on=on_and_off[0],
        off=on_and_off[1],
        leaves=draw(st.sampled_from([0.0, 0.0, 0.0, 0.5])),
        routers=draw(st.sampled_from([(), (), (0,)])),
        bytes_per_token=draw(st.sampled_from([4, 4, 1, 40])),
    )


@st.composite
def scenarios(draw) -> Scenario:
    delay, report, charge = draw(
        st.sampled_from([(0, 0, 0), (0.002, 0.01, 0.1), (0.02, 0.02, 1.0), (0.0, 0.0, 5.0)])
    )
    slots = draw(st.sampled_from([1, 2, 4, 16]))
    shape = Shape(
        replicas=draw(st.integers(1, 3)),
        routers=draw(st.integers(1, 2)),
        slots=slots,
        lookahead=draw(st.integers(0, 3)),
        memory=draw(st.sampled_from([1e9, 1e9, 200, 400])),
        fills=draw(st.sampled_from(["at once", "at once", "doubling", "by lookahead"])),
        step_s=0.05,
        prefill_s=draw(st.sampled_from([0.0001, 0.001])),
        delay_s=delay,
        report_s=report,
        charge_s=charge,
    )
    names = "abcd"[: draw(st.integers(2, 4))]
    return Scenario(
        "found",
        tuple(draw(flows(name)) for name in names),
        shape,
        draw(
            st.sampled_from(
                [
                    Prediction(),
                    Prediction("pool_average"),
                    Prediction("moving_average"),
                    Prediction("quantile", 0.5, 0.9),
                ]
            )
        ),
        draw(st.sampled_from([ServiceCost(), ServiceCost(1, 1), ServiceCost(2, 0.5)])),
        seconds=12.0,
        seed=draw(st.integers(0, 99)),
        burst=draw(st.sampled_from([0.0, 0.0, 20.0, 500.0])),
    )


@pytest.fixture(scope="module")
def tightest() -> Iterator[list[float]]:
    found: list[float] = [0.0]
    yield found
    print(f"\nthe largest gap found is {max(found):.0%} of its bound")


@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
@given(scenario=scenarios())
def test_no_cluster_and_load_break_the_bound(scenario, tightest):
    outcome = play(scenario)
    tightest.append(outcome.tightness)
    target(outcome.tightness)
    for pair, gap in outcome.witness.gaps.items():
        assert gap <= outcome.bound(*pair), (pair, gap, outcome.bound(*pair))
    for pair, excess in outcome.witness.excess.items():
        assert excess <= outcome.excess_bound(*pair), (pair, excess)
    assert not any(outcome.leftovers.values())


# --- controls: what is broken must be seen, or the tests above would prove nothing ----------------

GREEDY = (Flow("big", (20, 60), (60, 80), held=90), Flow("small", (5, 5), (5, 5), held=30))
COMES_BACK = (Flow("steady", held=30), Flow("saver", held=30, on=5, off=60))


def tightness(flows, shape=Shape(), tamper=lambda cluster: None) -> float:  # noqa: B008
    return play(Scenario("control", flows, shape, seconds=120), tamper).tightness


def without_lift(cluster: Cluster) -> None:
    cluster.pool._tree._lift = lambda group: 0.0


def with_a_replica_that_hides_service(cluster: Cluster) -> None:
    """It says of big's leases that they made but a tenth of what they did."""
    call = cluster.call

    def lie(sender, said, heed):
        for n, (verb, *arguments) in enumerate(said.verbs):
            if verb in ("charge", "settle") and arguments[0].startswith("big"):
                said.verbs[n] = (verb, *arguments[:3], arguments[3] // 10)
        call(sender, said, heed)

    cluster.call = lie


def test_control_first_come_first_served_breaks_the_bound():
    assert tightness(GREEDY) < 1
    assert tightness(GREEDY, Shape(order="fcfs")) > 2


def test_control_without_the_lift_idle_time_is_saved_up():
    assert tightness(COMES_BACK) < 1
    assert tightness(COMES_BACK, tamper=without_lift) > 2


def test_control_service_that_is_not_reported_is_seen():
    assert tightness(GREEDY, tamper=with_a_replica_that_hides_service) > 2


def test_late_charges_widen_gaps_but_not_beyond_the_bound():
    """Credits come back with settlements only, so at most a window of leases is ever unknown."""
    flows = tuple(Flow(client, (5, 5), (10, 200), held=60) for client in "ab")
    prompt = Shape(slots=8, charge_s=0, report_s=0, delay_s=0)
    exact = tightness(flows, prompt)
    assert 1.2 * exact < tightness(flows, replace(prompt, charge_s=100)) <= 1


def test_filling_an_idle_replica_at_once_costs_what_the_bound_says():
    """Whoever comes first to an idle pool gets all its window. Where memory holds less than that,
    what waits inside is beyond the queue's reach, and more than the paper's 2U."""
    gaps = {}
    for fills in ("at once", "doubling"):
        shape = Shape(slots=64, lookahead=4, memory=2000, fills=fills)
        flows = tuple(Flow(client, (20, 60), (20, 60), held=100) for client in "ab")
        outcome = play(Scenario("idle", flows, shape, seconds=30))
        gaps[fills] = outcome.witness.gaps["a", "b"]
        assert gaps[fills] <= outcome.bound("a", "b")
    assert gaps["at once"] > 5 * gaps["doubling"]
