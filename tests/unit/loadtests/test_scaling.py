"""Fitting a workload to a server."""

import pytest

from loadtests.scaling import Demand, Scale
from loadtests.workloads.workload import Request, Workload

LONG = Request(10.0, "a", 400, 200, prefix="p", prefix_tokens=100, abort_after=50, key=2)
SHORT = Request(20.0, "b", 1, 1)


def test_all_lengths_shrink_alike_and_none_to_nothing() -> None:
    fitted = Scale(token_scale=0.25).fit(Workload("w", (LONG, SHORT), {"a": 2.0}))
    shrunk, tiny = fitted.requests
    assert shrunk == Request(10.0, "a", 100, 50, "p", 25, abort_after=12, key=2)
    assert (tiny.input_tokens, tiny.output_tokens) == (1, 1)
    assert fitted.weights == {"a": 2.0}


def test_seconds_are_of_the_clock() -> None:
    workload = Workload("w", (LONG, SHORT))
    assert Scale(time_scale=0.1, seconds=1.5).fit(workload).requests == (LONG,)
    assert Scale(time_scale=0.1, seconds=2.5).fit(workload).requests == (LONG, SHORT)
    assert Scale(time_scale=1.0, seconds=5.0).fit(workload).requests == ()


def test_demand_is_per_second_of_the_clock() -> None:
    demand = Demand.of(Workload("w", (LONG, SHORT)), 0.1)
    assert demand.requests_per_s == pytest.approx(1.0)
    assert demand.input_tokens_per_s == pytest.approx(200.5)
    assert demand.output_tokens_per_s == pytest.approx(100.5)


@pytest.mark.parametrize("scales", [(0.0, 1.0), (1.0, -1.0)])
def test_a_scale_of_nothing_is_an_error(scales: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="above zero"):
        Scale(*scales)
