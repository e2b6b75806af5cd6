"""Measures of a run, held against small examples and against slow, obvious code."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given as given_examples
from hypothesis import settings
from hypothesis import strategies as st

from fairness import measures as by_delivery
from fairness.measures import Delivery
from loadtests.cost import PROFILED
from loadtests.measures.backlog import common_backlog, union, usually_backlogged
from loadtests.measures.delivered import service_curves
from loadtests.measures.difference import accumulated_gap, paper_ticks, service_difference
from loadtests.measures.gap import gap, worst_pair
from loadtests.measures.latency import isolation, small_clients, small_p99_ttft, ttft_percentile
from loadtests.measures.summary import summarise, throughput
from loadtests.outcome import Outcome, Run
from loadtests.workloads.workload import Request, Workload


def served(  # noqa: PLR0917
    client: str, at: float, first: float, last: float, inputs: int = 10, outputs: int = 20
) -> Outcome:
    request = Request(at, client, inputs, outputs)
    return Outcome(request, "done", last, inputs, outputs, first, last)


def refused(client: str, at: float, inputs: int = 10, outputs: int = 20) -> Outcome:
    return Outcome(Request(at, client, inputs, outputs), "refused", at)


def run_of(outcomes: Sequence[Outcome], makespan: float = 600.0, **weights: float) -> Run:
    requests = tuple(sorted((o.request for o in outcomes), key=lambda request: request.at))
    return Run(Workload("made up", requests, weights), "test", 1, tuple(outcomes), makespan)


times = st.floats(0, 700)


def quickly(*strategies: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Fewer examples than usual, and no deadline: the machine may be busy."""

    def wrap(test: Callable[..., None]) -> Callable[..., None]:
        return settings(max_examples=60, deadline=None)(given_examples(*strategies)(test))

    return wrap


@st.composite
def outcome_lists(draw: st.DrawFn) -> list[Outcome]:
    made = []
    for _ in range(draw(st.integers(1, 12))):
        client = draw(st.sampled_from("abc"))
        at, wait, lasts = draw(times), draw(st.floats(0, 300)), draw(st.floats(0, 100))
        lengths = draw(st.integers(1, 500)), draw(st.integers(1, 500))
        if draw(st.integers(0, 9)) == 0:
            made.append(refused(client, at, *lengths))
        else:
            made.append(served(client, at, at + wait, at + wait + lasts, *lengths))
    return made


# Service over time


def test_input_comes_with_the_first_token_and_output_evenly_after_it() -> None:
    run = run_of([served("a", 0, 2, 12, inputs=100, outputs=50), served("b", 0, 3, 3, 5, 1)])
    curves = service_curves(run)
    moments = [0, 2, 7, 12, 99]
    assert curves["a"].at(moments).tolist() == pytest.approx([0, 100, 150, 200, 200])
    assert curves["a"].until(moments).tolist() == pytest.approx([0, 0, 150, 200, 200])
    assert curves["b"].at([2.9, 3.0]).tolist() == [0, 7]
    assert curves["b"].until([3.0]).tolist() == [0]


@quickly(outcome_lists(), st.lists(times, min_size=1, max_size=5))
def test_service_over_time_is_what_each_request_got(
    outcomes: list[Outcome], moments: list[float]
) -> None:
    curves = service_curves(run_of(outcomes))
    for name, curve in curves.items():
        for moment in moments:
            expected = 0.0
            for o in outcomes:
                if o.request.client != name or o.first_token is None or o.first_token > moment:
                    continue
                lasts = o.ended - o.first_token
                # The code's own threshold: shorter ones come at once.
                part = min(1.0, (moment - o.first_token) / lasts) if lasts > 1e-6 else 1.0
                expected += o.input_tokens + 2 * o.output_tokens * part
            assert curve.at([moment])[0] == pytest.approx(expected, abs=1e-3)


# The paper's service difference


def slow_service_difference(run: Run) -> list[float]:
    """The definition, request by request and tick by tick."""
    series = []
    counted = [o for o in run.outcomes if o.ending == "done"]
    for k in range(1, 20):
        tick = 30 + 28.5 * k
        start, end = tick - 30, tick + 30
        got = dict.fromkeys(run.workload.clients, 0.0)
        asked = dict.fromkeys(run.workload.clients, 0.0)
        for o in counted:
            client, service = o.request.client, o.input_tokens + 2 * o.output_tokens
            if start <= o.request.at <= end:
                asked[client] += service / 60
            assert o.first_token is not None
            lasts = o.ended - o.first_token
            if o.ended < 1 or lasts < 1e-5:
                continue
            inside = max(0.0, min(end, o.ended) - max(start, o.first_token))
            got[client] += service * inside / lasts / 60
        most = max(got.values())
        series.append(sum(min(most - got[c], abs(asked[c] - got[c])) for c in got))
    return series


def test_the_paper_looks_at_these_moments() -> None:
    assert paper_ticks().tolist() == pytest.approx([30 + 28.5 * k for k in range(1, 20)])


@quickly(outcome_lists())
def test_service_difference_is_its_definition(outcomes: list[Outcome]) -> None:
    run = run_of(outcomes)
    slow = slow_service_difference(run)
    fast = service_difference(run)
    assert fast.series == pytest.approx(slow, abs=1e-6)
    assert fast.average == pytest.approx(sum(slow) / 19, abs=1e-6)
    assert fast.maximum == pytest.approx(max(slow), abs=1e-6)
    assert fast.variance == pytest.approx(float(np.var(slow)), abs=1e-3)


def test_equal_service_is_no_difference_and_one_sided_service_is() -> None:
    def steady(client: str, each: int) -> list[Outcome]:
        return [served(client, at, at, at + 10, each, each) for at in range(0, 700, 10)]

    equal = run_of([*steady("a", 100), *steady("b", 100)])
    assert service_difference(equal).maximum == pytest.approx(0)
    assert accumulated_gap(equal).maximum == pytest.approx(0)
    # b asks for as much as a and gets nothing until long after: it lacks all of a's 30 a second.
    starved = [served("b", o.request.at, 5000, 5001, 100, 100) for o in steady("b", 100)]
    unequal = run_of([*steady("a", 100), *starved])
    # A window that ends with an arrival counts it, so b asks for up to 35.
    assert service_difference(unequal).average == pytest.approx(30)
    assert accumulated_gap(unequal).maximum == pytest.approx(30 * 541.5)
    assert accumulated_gap(unequal, clients=["a"]).maximum == 0


def test_refused_requests_are_neither_asked_for_nor_received() -> None:
    outcomes = [served("a", at, at, at + 10, 100, 100) for at in range(0, 700, 10)]
    others = [refused("b", at) for at in range(0, 700, 10)]
    assert service_difference(run_of([*outcomes, *others])).maximum == pytest.approx(
        service_difference(run_of(outcomes)).maximum
    )


def test_service_may_be_measured_by_the_time_that_requests_take() -> None:
    # The paper prints tenths of a millisecond.
    assert 10 * PROFILED.of(100, 10) == pytest.approx(
        2.1 * 100 + 10 + 0.04 * 100 * 10 + 0.032 * 10 * 10 + 11.46, rel=1e-2
    )
    run = run_of([served("a", 0, 10, 20, 100, 10), served("b", 0, 15, 25, 100, 10)])
    line = service_curves(run, cost=PROFILED)["a"]
    assert line.at([10, 20]).tolist() == pytest.approx([PROFILED.of(100, 0), PROFILED.of(100, 10)])
    between = gap(run, ["a", "b"], cost=PROFILED)
    assert between is not None
    assert between.largest == pytest.approx(PROFILED.of(100, 0))
    # A minute around the first tick has all of a's and b's, so neither lacks anything.
    assert service_difference(run, cost=PROFILED).series[0] == pytest.approx(0)


# Backlog and gap


def test_union_of_intervals() -> None:
    merged = union([(5, 6), (0, 2), (1, 3), (3, 4), (7, 7)])
    assert (merged.starts.tolist(), merged.ends.tolist()) == ([0, 5], [4, 6])
    assert merged.total == 5
    assert merged.longest() == (0, 4)
    assert union([]).longest() is None


interval_lists = st.lists(
    st.tuples(st.integers(0, 20), st.integers(0, 20)).map(lambda p: (min(p), max(p))), max_size=8
)


@quickly(interval_lists, interval_lists)
def test_what_two_have_in_common(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    common = union(one) & union(other)
    for half in range(40):
        at = half / 2 + 0.25
        inside = all(any(s < at < e for s, e in pairs) for pairs in (one, other))
        assert inside == any(s < at < e for s, e in zip(common.starts, common.ends, strict=True))


def test_common_backlog_is_the_longest_time_in_which_all_wait() -> None:
    run = run_of(
        [
            served("a", 0, 30, 31),
            served("a", 20, 60, 61),
            served("b", 10, 15, 16),
            served("b", 25, 50, 51),
            Outcome(Request(40, "c", 1, 1), "failed", 45),
        ]
    )
    assert common_backlog(run, ["a", "b"]) == (25, 50)
    assert common_backlog(run, ["a", "b", "c"]) == (40, 45)
    # Arrivals end at 40: a waits all of that, b half of it, c not yet.
    assert usually_backlogged(run) == ("a", "b")
    with pytest.raises(ValueError, match="not clients of this run: d"):
        common_backlog(run, ["a", "d"])


def test_the_gap_counts_from_the_start_of_the_common_backlog() -> None:
    run = run_of(
        [
            served("a", 0, 5, 5, 100, 50),  # before b waits: owed nothing
            served("a", 0, 20, 30, 100, 50),
            served("a", 0, 100, 100),
            served("b", 10, 40, 40, 300, 100),
            served("b", 10, 90, 91),
        ]
    )
    found = gap(run, ["a", "b"])
    assert found is not None
    assert (found.start, found.end) == (10, 90)
    # a leads by 200 at 30; b's 500 at 40 make it 300 the other way, and its prompt at 90 310.
    assert found.largest == pytest.approx(310)
    heavy = gap(run_of(run.outcomes, a=2.0, b=5.0), ["a", "b"])
    assert heavy is not None
    assert heavy.largest == pytest.approx(100)  # at 30: 200 / 2; later 102 - 100
    assert heavy.jain == pytest.approx(by_delivery.jain_index([100, 102]))


def test_there_is_no_gap_between_clients_that_never_wait_together() -> None:
    run = run_of([served("a", 0, 5, 6), served("b", 7, 9, 10)])
    assert gap(run, ["a", "b"]) is None
    assert worst_pair(run) is None
    with pytest.raises(ValueError, match="at least two"):
        gap(run, ["a"])


@quickly(outcome_lists())
def test_the_gap_of_instant_deliveries_is_that_of_fairness_measures(
    outcomes: list[Outcome],
) -> None:
    at_once = [
        served(
            o.request.client, o.request.at, o.first_token, o.first_token,
            o.input_tokens, o.output_tokens,
        )
        for o in outcomes
        if o.first_token is not None
    ]  # fmt: skip
    run = run_of(at_once)
    if len(run.workload.clients) < 2:
        return
    pair = run.workload.clients[:2]
    found = gap(run, pair)
    if found is None:
        return
    deliveries = [
        Delivery(o.first_token, o.request.client, o.input_tokens, o.output_tokens)
        for o in at_once
        if o.first_token is not None
    ]
    expected = by_delivery.gap(deliveries, pair, found.start, found.end)
    assert found.largest == pytest.approx(expected, abs=1e-6)
    worst = worst_pair(run)
    assert worst is not None
    assert worst.largest >= found.largest - 1e-6


def test_the_worst_pair_looks_at_all_windows_of_common_backlog() -> None:
    run = run_of(
        [
            *(served("a", 0, first, first, 100, 50) for first in (10, 40, 41, 99)),
            *(served("b", 0, first, first, 100, 50) for first in (20, 21, 99)),
        ]
    )
    # a leads by 200, b by 200, a by 200: from 20 to 21 b gained 400.
    found = gap(run, ["a", "b"])
    assert found is not None
    assert found.largest == pytest.approx(200)
    worst = worst_pair(run)
    assert worst is not None
    assert worst.clients == ("a", "b")
    assert worst.largest == pytest.approx(400)


# Latency, throughput, everything


def test_small_clients_are_all_but_the_three_largest() -> None:
    sizes = {"a": 5, "b": 400, "c": 300, "d": 200, "e": 100}
    outcomes = [served(name, 0, size / 100, 9, inputs=size) for name, size in sizes.items()]
    run = run_of(outcomes)
    assert small_clients(run) == ("a", "e")
    assert small_p99_ttft(run) == pytest.approx(np.percentile([0.05, 1.0], 99))
    assert ttft_percentile(run, 50) == pytest.approx(2.0)
    assert small_p99_ttft(run_of(outcomes[:2])) is None


def test_isolation_is_how_much_longer_a_client_waits_beside_others() -> None:
    alone = run_of([served("a", 0, 1, 2), served("a", 5, 6, 7)])
    beside = run_of([served("a", 0, 3, 4), served("a", 5, 8, 9), served("b", 0, 1, 2)])
    assert isolation(alone, beside, "a").times_p99 == pytest.approx(3)
    with pytest.raises(ValueError, match="b got no token"):
        isolation(alone, beside, "b")


def test_throughput_counts_what_came_over_all_of_the_time() -> None:
    cut = Outcome(Request(0, "a", 10, 100), "aborted", 5, 10, 40, 1.0, 5.0)
    run = run_of([cut, refused("b", 1), served("b", 2, 3, 4, 20, 30)], makespan=50)
    assert throughput(run) == pytest.approx(2.0)
    summary = summarise(run)
    assert (summary.done, summary.aborted, summary.refused, summary.failed) == (1, 1, 1, 0)
    assert summary.gap is None
    assert summary.as_json()["throughput"] == pytest.approx(2.0)
