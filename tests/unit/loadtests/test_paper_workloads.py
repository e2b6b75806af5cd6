"""The paper's workloads are those its artifact recorded, to the request."""

import json
from pathlib import Path

import pytest

from loadtests.workloads.arena import arena
from loadtests.workloads.paper import paper_suite
from loadtests.workloads.paper_suites import SUITES

RECORDED = json.loads((Path(__file__).parent / "data" / "vtc_suites.json").read_text())


@pytest.mark.parametrize("name", sorted(RECORDED["suites"]))
def test_a_suite_is_as_recorded(name: str) -> None:
    workload = paper_suite(name)
    assert list(workload.requests) == sorted(workload.requests, key=lambda r: r.at)
    assert set(workload.clients) == set(RECORDED["suites"][name])
    for client, recorded in RECORDED["suites"][name].items():
        sent = [request for request in workload.requests if request.client == client]
        assert recorded == [
            len(sent),
            # As many digits as the recording's summary has.
            pytest.approx(sent[0].at, abs=0.6e-4),
            pytest.approx(sent[-1].at, abs=0.6e-3),
            sum(request.input_tokens for request in sent),
            sum(request.output_tokens for request in sent),
        ]


def test_every_suite_is_compared() -> None:
    assert set(SUITES) == set(RECORDED["suites"])


@pytest.mark.parametrize(
    ("name", "seconds", "requests"), RECORDED["recorded_requests_by_duration_s"]
)
def test_a_suite_of_another_length_is_as_recorded(name: str, seconds: float, requests: int) -> None:
    assert len(paper_suite(name, duration=seconds).requests) == requests


def test_an_unknown_suite_names_those_there_are() -> None:
    with pytest.raises(ValueError, match="overload-multi"):
        paper_suite("overlaod")


def test_the_arena_trace() -> None:
    trace = arena()
    assert len(trace.requests) == 1500
    assert len(trace.clients) == 27
    assert trace.requests[0].at == 0.0
    assert trace.last_arrival <= 600.0
    # client02 is the largest: 19.7% of the requests.
    assert sum(r.client == "client02" for r in trace.requests) == 296
    assert sum(r.client == "client00" for r in trace.requests) == 199
    assert sum(r.input_tokens for r in trace.requests if r.client == "client10") == 32219
    assert sum(r.output_tokens for r in trace.requests if r.client == "client10") == 80546
