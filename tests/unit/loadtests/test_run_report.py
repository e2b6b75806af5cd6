"""The report on real runs: the right clients compared, and its doubts stated."""

import pytest

from loadtests.outcome import Outcome, Run
from loadtests.report.page import page
from loadtests.run_report import report
from loadtests.workloads.workload import Request, Workload

REQUESTS = tuple(
    Request(float(at), client, 10, 10)
    for at in range(100)
    for client in ("big", "big", "big", "small")
)


def run(system: str, waits: dict[str, float], **numbers: float) -> Run:
    """A run in which every request of a client waits as long."""
    outcomes = tuple(
        Outcome(
            request,
            "done",
            ended=request.at + waits[request.client] + 1,
            input_tokens=10,
            output_tokens=10,
            first_token=request.at + waits[request.client],
            last_token=request.at + waits[request.client] + 1,
        )
        for request in REQUESTS
    )
    return Run(Workload("some", REQUESTS), system, 2, outcomes, 150.0, numbers=numbers)


def test_the_lead_is_about_those_who_ask_for_less() -> None:
    found = report([run("vtc", {"big": 30.0, "small": 2.0}), run("fcfs", {"big": 9, "small": 9})])
    assert "waited 2.0 s under vtc, 9.0 s under fcfs" in found.lead
    assert "fell behind" not in found.lead
    assert found.numbers["vtc"]["done"] == 400


def test_a_gap_is_of_the_same_clients_in_all_runs() -> None:
    """Where the small one hardly waits in one run it is compared in none."""
    fair = run("vtc", {"big": 30.0, "small": 0.1})
    unfair = run("fcfs", {"big": 9.0, "small": 9.0})
    assert report([unfair]).numbers["fcfs"]["gap"] is not None
    assert report([fair, unfair]).numbers["fcfs"]["gap"] is None


def test_a_late_driver_stands_in_the_first_lines() -> None:
    late = run("vtc", {"big": 1.0, "small": 1.0}, fell_behind=1.0, late_p99_clock_s=0.7)
    found = report([late])
    assert "fell behind (vtc)" in found.lead
    assert "700" in page(found)


def test_one_workload_at_a_time() -> None:
    one = run("vtc", {"big": 1.0, "small": 1.0})
    other = Run(Workload("other", REQUESTS), "vtc", 1, one.outcomes, 1.0)
    for runs in ([], [one, other]):
        with pytest.raises(ValueError, match="one workload"):
            report(runs)
