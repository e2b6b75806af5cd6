"""Play days of traffic on pools that scale, each in a process of its own, and sum each up.

A day is minutes of computing, so progress is told in simulated hours: a process writes how far it
is into memory that it shares with the one that draws the bars.
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from fairness.bounds import PoolLimits, paper_bound
from loadtests.measures.gap import worst_pair
from loadtests.measures.latency import ttft_percentile
from loadtests.outcome import Run
from loadtests.workloads.day import BURST_PAIR, HOUR_S, SERVER_RATE, day
from loadtests.workloads.part import only

if TYPE_CHECKING:
    from loadtests.simulator.autoscaled import Decision, Log

CHARGE_INTERVAL_S = 1.0
BURST = 2.0  # servers' worth
TARGET = 0.8
UNDONE_S = 600.0
BIN_S = 600.0

Tell = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Day:
    """A day to be played. seconds: of it. peak: servers' worth at the highest hour.

    downscale_delay_s: None for a fleet that is always there.
    """

    seed: int
    seconds: float
    peak: float
    start_s: float
    downscale_delay_s: float | None

    @property
    def fleet(self) -> int:
        """As many as the highest hour with a burst needs: always, or at most."""
        return math.ceil((self.peak + BURST) / TARGET)

    @property
    def name(self) -> str:
        """As it is called in tables."""
        if self.downscale_delay_s is None:
            return f"fixed at {self.fleet}"
        return f"delay {self.downscale_delay_s:g} s"


@dataclass(frozen=True, slots=True)
class Played:
    """What came of a day. numbers: as the experiment documents them. bound: on the gap, service.

    hours, paid, waiting: GPUs and waiting requests over time. asked_hours, asked: servers' worth.
    """

    day: Day
    numbers: dict[str, float | None]
    bound: float
    hours: list[float]
    paid: list[int]
    waiting: list[int]
    asked_hours: list[float]
    asked: list[float]


def undone(decisions: Sequence[Decision], within_s: float = UNDONE_S) -> int:
    """Return how many decisions went against the one before them, so soon after it."""
    return sum(
        (later.after > later.before) != (earlier.after > earlier.before)
        and later.at - earlier.at < within_s
        for earlier, later in itertools.pairwise(decisions)
    )


def play_day(chosen: Day, tell: Tell | None = None) -> Played:
    """Play one; `tell` hears how many seconds of it are over."""
    from loadtests.simulator.autoscaled import Log, Scaling, autoscaled
    from loadtests.simulator.settings import FairlaneSettings
    from loadtests.simulator.simulation import simulate

    if chosen.downscale_delay_s is None:
        scaling = Scaling.fixed(chosen.fleet)
    else:
        scaling = Scaling(
            max_replicas=chosen.fleet,
            downscale_delay_s=chosen.downscale_delay_s,
            start_s=chosen.start_s,
        )
    load = day(peak=chosen.peak, burst=BURST, seed=chosen.seed, seconds=chosen.seconds)
    log = Log()
    run = simulate(
        load,
        autoscaled(FairlaneSettings(charge_interval_s=CHARGE_INTERVAL_S), scaling, log),
        scaling.min_replicas,
        seed=chosen.seed,
        name=chosen.name,
        progress=None if tell is None else lambda ended, now: tell(now),
    )
    bins = np.arange(0.0, chosen.seconds + BIN_S, BIN_S)
    counts, _ = np.histogram([request.at for request in load.requests], bins)
    return Played(
        chosen,
        _numbers(run, log),
        _bound(run, chosen.fleet),
        [look.at / HOUR_S for look in log.looks],
        [look.paid for look in log.looks],
        [look.waiting for look in log.looks],
        (bins[:-1] / HOUR_S).tolist(),
        (counts / BIN_S / SERVER_RATE).tolist(),
    )


def _numbers(run: Run, log: Log) -> dict[str, float | None]:
    ups = sum(decision.after > decision.before for decision in log.decisions)
    return {
        "gpu_hours": log.gpu_s / HOUR_S,
        "waiting_p50_s": ttft_percentile(run, 50),
        "waiting_p99_s": ttft_percentile(run, 99),
        "served": sum(outcome.ending == "done" for outcome in run.outcomes),
        "scale_ups": ups,
        "scale_downs": len(log.decisions) - ups,
        "thrash": undone(log.decisions),
        "streams_cut": log.cut + sum(outcome.ending != "done" for outcome in run.outcomes),
        "gap": _gap(run),
    }


def _gap(run: Run) -> float | None:
    """The worst of the two batch jobs, in any stretch in which both wait."""
    pair = only(run.workload, BURST_PAIR)
    if len(pair.clients) < len(BURST_PAIR):
        return None
    theirs = tuple(each for each in run.outcomes if each.request.client in BURST_PAIR)
    worst = worst_pair(replace(run, workload=pair, outcomes=theirs))
    return None if worst is None else worst.largest


def _bound(run: Run, replicas: int) -> float:
    """The paper's 2U for so many replicas, all their memory full of one client's output."""
    from loadtests.simulator.hardware import A10G

    limits = PoolLimits(
        replicas=replicas,
        longest_input=max(request.input_tokens for request in run.workload.requests),
        longest_output=max(request.output_tokens for request in run.workload.requests),
        window=A10G.max_running,
        batch_tokens=A10G.kv_tokens,
    )
    return paper_bound(limits)


class _Worker:
    """A process that plays. told: simulated seconds by day; only a process's start may pass it."""

    told: Any = None

    @classmethod
    def start(cls, told: Any) -> None:
        cls.told = told

    @classmethod
    def play(cls, number: int, chosen: Day) -> Played:
        return play_day(chosen, lambda now: cls.told.__setitem__(number, now))


def play_days(days: Sequence[Day], *, workers: int) -> list[Played]:
    """Play all on so many processes, under a bar for each; results in order."""
    context = multiprocessing.get_context("spawn")  # nothing of this process is inherited by chance
    told = context.Array("d", len(days), lock=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("hour {task.completed:.1f} of {task.total:g}"),
        TimeElapsedColumn(),
    )
    with (
        ProcessPoolExecutor(
            workers, mp_context=context, initializer=_Worker.start, initargs=(told,)
        ) as pool,
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        bars = [progress.add_task(each.name, total=each.seconds / HOUR_S) for each in days]
        futures = [pool.submit(_Worker.play, number, each) for number, each in enumerate(days)]
        left: Any = futures
        try:
            while left:
                _, left = wait(left, timeout=0.5)
                for bar, seconds in zip(bars, told, strict=True):
                    progress.update(bar, completed=seconds / HOUR_S)
        finally:
            pool.shutdown(cancel_futures=True)
    return [future.result() for future in futures]
