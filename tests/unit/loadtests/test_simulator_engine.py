"""The simulated engine, step by step and against a plain simulation without shortcuts."""

from __future__ import annotations

from random import Random

import pytest

from fairness.policy import FCFS, VTC
from loadtests.simulator.batch import Batch
from loadtests.simulator.hardware import A10G, Server, StepTimes
from loadtests.simulator.job import Job
from loadtests.simulator.named import central
from loadtests.simulator.simulation import simulate
from loadtests.workloads.workload import Request, Workload


def _job(name: str, prompt: int, output: int, client: str = "a") -> Job:
    return Job(name, Request(0.0, client, prompt, output), 1.0, prompt, lambda job: None)


def test_steps_in_a_row_take_as_long_as_one_by_one() -> None:
    times = StepTimes()
    one_by_one = sum(times.decode(1, 7, 1_000 + 7 * step) for step in range(40))
    assert times.decode(40, 7, 1_000) == pytest.approx(one_by_one)
    for seconds in (0.0, 0.5 * one_by_one, one_by_one * 1.0001, 2 * one_by_one):
        steps = times.decoded(seconds, 7, 1_000)
        assert times.decode(steps, 7, 1_000) <= seconds < times.decode(steps + 1, 7, 1_000)


def test_one_request_alone() -> None:
    run = simulate(Workload("one", (Request(0.005, "a", 98, 11),)), "vtc")
    (outcome,) = run.outcomes
    times = A10G.times
    assert outcome.first_token == pytest.approx(0.01 + times.prefill(100))  # it polls every 10 ms
    assert outcome.last_token == pytest.approx(outcome.first_token + times.decode(10, 1, 101))
    assert (outcome.ending, outcome.input_tokens, outcome.output_tokens) == ("done", 98, 11)


def test_who_comes_while_others_run_waits_ten_steps() -> None:
    requests = (Request(0.0, "a", 98, 200), Request(0.2, "b", 98, 200))
    first, second = simulate(Workload("two", requests), "vtc").outcomes
    times = A10G.times
    admitted = times.prefill(100) + times.decode(10, 1, 101)
    assert first.first_token is not None
    assert second.first_token == pytest.approx(admitted + times.prefill(100))


def test_a_client_that_hangs_up_gets_no_more_tokens() -> None:
    requests = (Request(0.0, "a", 100, 300, abort_after=20), Request(0.0, "b", 100, 300))
    gone, stayed = simulate(Workload("abort", requests), "vtc").outcomes
    assert (gone.ending, gone.output_tokens) == ("aborted", 20)
    assert (stayed.ending, stayed.output_tokens) == ("done", 300)
    assert gone.ended < stayed.ended


def test_what_can_never_fit_is_an_error() -> None:
    with pytest.raises(ValueError, match="never fit"):
        simulate(Workload("huge", (Request(0.0, "a", 2_000, 9_000),)), "fcfs")


def test_memory_is_reserved_by_the_highest_need_to_come() -> None:
    """Against a batch that is played out token by token."""
    random = Random(5)
    for _ in range(30):
        batch = Batch(Server(client_tokens=0, kv_tokens=3_000))
        for number in range(40):
            job = _job(str(number), random.randint(5, 400), random.randint(2, 400))
            if batch.steps_until_room(job) == 0:
                batch.add(job)
                batch.prefilled()
            batch.step(min(batch.next_end, random.randint(0, 20)))
            batch.take_ended()
        most = 0
        while batch.jobs:
            most = max(most, batch.context)
            batch.step(1)
            batch.take_ended()
        assert most < 3_000


def test_there_is_no_room_before_the_step_that_was_foretold() -> None:
    batch = Batch(Server(client_tokens=0, kv_tokens=1_000))
    for name in ("one", "two", "three"):
        batch.add(_job(name, 100, 200))
        batch.prefilled()
    late = _job("late", 100, 200)
    foretold = batch.steps_until_room(late)
    assert foretold > 0
    for _ in range(foretold):
        assert batch.steps_until_room(late) > 0
        batch.step(1)
    assert batch.steps_until_room(late) == 0


@pytest.mark.parametrize("policy", [FCFS(), VTC()])
def test_shortcuts_change_nothing(policy: FCFS | VTC) -> None:
    """A line that is never sure who is first makes the engine look at every step."""

    class Unsure(type(policy)):
        """The same order, not recognised as steady."""

    random = Random(3)
    requests = sorted(
        (
            Request(random.uniform(0, 60), random.choice("abcd"), 100, random.randint(1, 300))
            for _ in range(200)
        ),
        key=lambda request: request.at,
    )
    workload = Workload("random", tuple(requests))
    quick, slow = simulate(workload, central(policy)), simulate(workload, central(Unsure()))
    assert [o.last_token for o in quick.outcomes] == pytest.approx(
        [o.last_token for o in slow.outcomes]
    )
