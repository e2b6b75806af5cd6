"""Replicas that come and go in simulated time: as many as are needed, seldom; no stream is cut."""

from __future__ import annotations

import json
from itertools import chain, repeat
from pathlib import Path

import pytest

from loadtests.experiments import autoscaling
from loadtests.experiments.days import Day, play_day, undone
from loadtests.outcome import Run
from loadtests.simulator.autoscaled import Decision, Log, Scaling, autoscaled
from loadtests.simulator.settings import FairlaneSettings
from loadtests.simulator.simulation import simulate
from loadtests.workloads.day import BURST_PAIR, DAY_S, HOUR_S, LOWEST, day, level
from loadtests.workloads.workload import Request, Workload

SETTINGS = FairlaneSettings(charge_interval_s=1.0)
QUICK = Scaling(
    upscale_delay_s=5, downscale_delay_s=60, look_back_period_s=5, metrics_interval_s=1, start_s=20
)


def served(load: Workload, scaling: Scaling = QUICK) -> tuple[Run, Log]:
    log = Log()
    run = simulate(load, autoscaled(SETTINGS, scaling, log), scaling.min_replicas, name="scaled")
    return run, log


def is_whole(run: Run, log: Log) -> bool:
    """Did every request get all its tokens?"""
    return log.cut == 0 and all(
        outcome.ending == "done" and outcome.output_tokens == outcome.request.output_tokens
        for outcome in run.outcomes
    )


def test_a_steady_load_has_its_replicas_and_keeps_them() -> None:
    """More than two servers' worth, at an even pace: a policy that heeds what idle replicas say
    takes away, again and again, what it has just started."""
    even = tuple(Request(n * 0.7, f"client{n % 3}", 300, 600) for n in range(600))
    run, log = served(Workload("even", even))
    assert is_whole(run, log)
    assert not [decision for decision in log.decisions if decision.at > 240]
    assert log.looks[-1].target in (4, 5)


def test_a_flood_that_is_over_leaves_one_and_its_streams_end() -> None:
    flood = [Request(10 + n / 10, f"client{n % 3}", 100, 300) for n in range(300)]
    trickle = [Request(60.0 * n, "patient", 100, 300) for n in range(1, 8)]
    load = Workload("flood", tuple(sorted([*flood, *trickle], key=lambda r: r.at)))
    run, log = served(load)
    assert is_whole(run, log)
    assert max(look.serving for look in log.looks) > 1
    assert log.looks[-1].target == 1
    # A GPU is paid for while its replica starts and drains, too.
    assert log.gpu_s > sum(look.serving for look in log.looks)


def test_streams_that_outlast_the_time_to_drain_are_counted() -> None:
    """The larger pool is full of long streams, and then wanted no more."""
    long = [Request(1.0 + n / 100, "a", 10, 1000) for n in range(40)]
    late = [Request(400.0, "a", 10, 10)]
    wanted = chain([2] * 30, repeat(1))
    hurried = Scaling(
        min_replicas=1, upscale_delay_s=2, downscale_delay_s=3, look_back_period_s=1,
        metrics_interval_s=1, start_s=5, drain_s=0.5, policy=lambda ctx: (next(wanted), {}),
    )  # fmt: skip
    _, log = served(Workload("long", (*long, *late)), hurried)
    assert [decision.after for decision in log.decisions] == [2, 1]
    assert log.cut > 0


def test_decisions_undone_soon_are_thrash() -> None:
    steps = [(0, 1, 4), (300, 4, 2), (2000, 2, 3), (2100, 3, 5)]
    assert undone([Decision(*step) for step in steps], within_s=600) == 1


def test_the_day_has_its_hours_and_its_bursts() -> None:
    assert level(4 * HOUR_S) == pytest.approx(LOWEST)
    assert level(16 * HOUR_S) == pytest.approx(1)
    assert level(DAY_S) == pytest.approx(level(0))
    one, same = day(seconds=HOUR_S * 3, seed=2), day(seconds=HOUR_S * 3, seed=2)
    assert one == same
    assert one != day(seconds=HOUR_S * 3, seed=3)
    larger, smaller = (
        [request.at for request in one.requests if request.client == name] for name in BURST_PAIR
    )
    assert 2.5 * HOUR_S <= min(larger) < max(larger) < 2.5 * HOUR_S + 600
    assert len(larger) / len(smaller) == pytest.approx(2, rel=0.2)


def test_a_day_is_played_alike_twice_and_costs_less_than_the_fleet() -> None:
    fixed = play_day(Day(1, 400, 1.5, 60, None))
    told: list[float] = []
    scaled = play_day(Day(1, 400, 1.5, 60, 120), told.append)
    assert scaled == play_day(Day(1, 400, 1.5, 60, 120))
    assert told == sorted(told)
    assert scaled.numbers["served"] == fixed.numbers["served"] == len(told)
    assert scaled.numbers["gpu_hours"] < 0.6 * fixed.numbers["gpu_hours"]
    assert fixed.numbers["scale_ups"] == 0
    assert fixed.paid == [fixed.day.fleet] * len(fixed.paid)


def test_the_command_ends_with_its_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--hours", "0.1", "--peak", "1", "--downscale-delays", "60", "--workers", "2"]
    assert autoscaling.main([*options, "--out", str(tmp_path)]) == 0
    numbers = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(numbers) == {"fixed at 4", "delay 60 s"}
    assert numbers["delay 60 s"]["streams_cut"] == 0
    page = (tmp_path / "autoscaling.html").read_text()
    assert page.count("<svg") == 2


@pytest.mark.parametrize("wrong", [["--hours", "0"], ["--downscale-delays", "60,no"]])
def test_wrong_options_are_told(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        autoscaling.main(wrong)
    assert "error" in capsys.readouterr().err
