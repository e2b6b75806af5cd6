"""Every named system serves everybody, exactly once and the same way twice."""

from __future__ import annotations

from random import Random

import pytest

from loadtests.measures.difference import service_difference
from loadtests.measures.gap import gap
from loadtests.simulator.fairlane import Fairlane
from loadtests.simulator.named import SYSTEMS, named
from loadtests.simulator.settings import FairlaneSettings
from loadtests.simulator.simulation import simulate
from loadtests.simulator.systems import Front, Site
from loadtests.workloads.arena import arena
from loadtests.workloads.paper import paper_suite
from loadtests.workloads.workload import Request, Workload


def _mixed(seed: int = 1, count: int = 250) -> Workload:
    """Three clients, one of them a flooder, some of whose requests are cut off; 90 s."""
    random = Random(seed)
    requests = [
        Request(
            random.uniform(0, 90),
            random.choice(["flooder"] * 4 + ["small", "other"]),
            random.randint(1, 500),
            random.randint(1, 300),
            abort_after=random.choice([None, None, None, 30]),
            entry=random.choice([None, 0, 1]),
        )
        for _ in range(count)
    ]
    requests.sort(key=lambda request: request.at)
    return Workload("mixed", tuple(requests), {"small": 2.0})


@pytest.mark.parametrize("system", sorted(SYSTEMS))
def test_serves_everybody_and_repeats(system: str) -> None:
    workload = _mixed()
    run, again = simulate(workload, system, 2, seed=7), simulate(workload, system, 2, seed=7)
    assert run.outcomes == again.outcomes
    for outcome in run.outcomes:
        asked, got = outcome.request, outcome.output_tokens
        if outcome.ending == "refused":
            assert system.startswith("rpm")
            assert got == 0
        else:
            assert got == min(asked.output_tokens, asked.abort_after or asked.output_tokens)
            assert outcome.first_token is not None
            assert asked.at < outcome.first_token <= outcome.ended


def test_an_unknown_system_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ValueError, match="vtc-predicted"):
        named("vct")


def test_nothing_is_left_behind_in_fairlane() -> None:
    built: list[Fairlane] = []

    def build(site: Site) -> Front:
        built.append(Fairlane(site, FairlaneSettings()))
        return built[-1]

    workload = _mixed()
    idle = Workload("idle", (*workload.requests, Request(300.0, "last", 1, 1)))
    simulate(idle, build, 2)
    left = built[0].leftovers()
    assert left["requests"] <= 1, left  # the last one's settlement is still under way
    assert left["lines"] == left["arrivals"] == left["routed"] == 0


def test_two_that_overload_a_server_share_it_by_weight() -> None:
    """For the minutes in which both wait; FCFS gives two thirds to who asks twice as often."""
    overload = paper_suite("overload", duration=120)

    def share(system: str, weight: float = 1.0) -> float:
        workload = Workload("pair", overload.requests, {"client1": weight})
        served = {"client1": 0, "client2": 0}
        for outcome in simulate(workload, system).outcomes:
            if outcome.last_token is not None and outcome.last_token < 120:
                served[outcome.request.client] += outcome.output_tokens
        return served["client1"] / served["client2"]

    assert share("fcfs") == pytest.approx(0.5, rel=0.1)
    for system in ("vtc", "vtc-predicted", "drr", "fairlane", "fairlane-exact"):
        assert share(system) == pytest.approx(1.0, rel=0.1), system
    assert share("vtc", weight=1.5) == pytest.approx(1.5, rel=0.1)


def test_the_recorded_order_of_systems_holds() -> None:
    """On the arena trace: VTC is fairer than LCF, and LCF fairer than FCFS."""
    trace = arena()
    fcfs, lcf, vtc = (
        service_difference(simulate(trace, system)).average for system in ("fcfs", "lcf", "vtc")
    )
    assert vtc < 0.75 * lcf
    assert lcf < 0.85 * fcfs


def test_late_binding_keeps_a_pair_closer_than_binding_at_arrival() -> None:
    """Four servers and two clients that overload them (docs: the way of one request)."""
    workload = paper_suite("overload", duration=60)
    crowd = Workload(
        "crowd",
        tuple(
            sorted(
                (
                    Request(r.at + 0.3 * copy, r.client, r.input_tokens, r.output_tokens)
                    for r in workload.requests
                    for copy in range(4)
                ),
                key=lambda request: request.at,
            )
        ),
    )

    def apart(system: str) -> float:
        pair = gap(simulate(crowd, system, 4), ["client1", "client2"])
        assert pair is not None
        return pair.largest

    assert apart("fairlane") < 0.3 * apart("local-vtc-least-loaded") < 0.3 * apart("fcfs")
