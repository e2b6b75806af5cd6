"""Play many simulated runs on all cores and sum them up; the order of results is the plan's.

Each run is a function of its trial alone, so the number of workers changes nothing but the time.
"""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass

from loadtests.cost import PROFILED
from loadtests.measures.difference import ServiceDifference, service_difference
from loadtests.measures.latency import ttft_percentile
from loadtests.measures.summary import Summary, summarise
from loadtests.outcome import Run
from loadtests.report.document import Cell
from loadtests.workloads.part import only
from loadtests.workloads.registry import workload


@dataclass(frozen=True, slots=True)
class Trial:
    """One run to be made: a system under a workload's copies, for so many replicas.

    seed: of jitter and chance. rivals: whose gap is measured. keep: bring the run back as well, to
    be drawn. watch: a client whose time to first token is wanted. alone: with nobody else.
    profiled: measure the service difference by the profiled cost too.
    """

    workload: str
    system: str
    replicas: int
    seed: int
    rivals: tuple[str, ...] = ()
    keep: bool = False
    watch: str | None = None
    alone: bool = False
    profiled: bool = False


@dataclass(frozen=True, slots=True)
class Played:
    """A trial and what came of it. watched: p50 and p99 of that client's TTFT, in seconds.

    profiled: the service difference by the profiled cost, in ms/s.
    """

    trial: Trial
    summary: Summary
    run: Run | None = None
    watched: tuple[float | None, float | None] | None = None
    profiled: ServiceDifference | None = None


def play(trial: Trial) -> Played:
    """Make one run."""
    from loadtests.simulator.simulation import simulate

    load = workload(trial.workload, replicas=trial.replicas, seed=trial.seed)
    if trial.alone and trial.watch is not None:
        load = only(load, {trial.watch})
    run = simulate(load, trial.system, trial.replicas, seed=trial.seed)
    summary = summarise(run, rivals=trial.rivals or None)
    watched = None
    if trial.watch is not None:
        p50, p99 = (ttft_percentile(run, q, [trial.watch]) for q in (50, 99))
        watched = (p50, p99)
    profiled = service_difference(run, cost=PROFILED) if trial.profiled else None
    return Played(trial, summary, run if trial.keep else None, watched, profiled)


def play_all(
    trials: Sequence[Trial], *, workers: int, done: Callable[[Trial], None]
) -> list[Played]:
    """Make all runs, on so many processes; `done` is told of each as it ends."""
    if workers <= 1:
        played = []
        for trial in trials:
            played.append(play(trial))
            done(trial)
        return played
    # Fresh interpreters: nothing of this process, threads above all, is inherited by chance.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        # The longest first, so that none is left for the end.
        order = sorted(range(len(trials)), key=lambda k: -trials[k].replicas)
        futures = {pool.submit(play, trials[k]): k for k in order}
        results: dict[int, Played] = {}
        try:
            for future in as_completed(futures):
                k = futures[future]
                results[k] = future.result()
                done(trials[k])
        finally:
            pool.shutdown(cancel_futures=True)  # of those that are left after an error or Ctrl-C
    return [results[k] for k in range(len(trials))]


class Results:
    """What was played, to be asked for by workload, system and replicas: a summary per seed."""

    def __init__(self, played: Iterable[Played]) -> None:
        self._by: dict[tuple[str, str, int], list[Played]] = {}
        self._alone: dict[tuple[str, str, int], list[Played]] = {}
        for each in played:
            trial = each.trial
            kind = self._alone if trial.alone else self._by
            kind.setdefault((trial.workload, trial.system, trial.replicas), []).append(each)

    def of(self, workload: str, system: str, replicas: int = 1) -> list[Summary]:
        """Return the summaries of these runs in order of their seeds; none where none was made."""
        return [each.summary for each in self._by.get((workload, system, replicas), [])]

    def run(self, workload: str, system: str, replicas: int = 1) -> Run | None:
        """Return the run that was kept."""
        kept = (each.run for each in self._by.get((workload, system, replicas), []))
        return next((run for run in kept if run is not None), None)

    def values(self, key: tuple[str, str, int], measure: str, per: float = 1.0) -> list[float]:
        """Return one measure of each seed, divided by ``per``."""
        found = [getattr(summary, measure) for summary in self.of(*key)]
        return [value / per for value in found if value is not None]

    def median(self, key: tuple[str, str, int], measure: str, per: float = 1.0) -> float | None:
        """Return the median over the seeds, None without a value."""
        values = self.values(key, measure, per)
        return statistics.median(values) if values else None

    def largest(self, key: tuple[str, str, int], measure: str) -> float | None:
        """Return the largest over the seeds, None without a value."""
        return max(self.values(key, measure), default=None)

    def cell(
        self,
        key: tuple[str, str, int],
        measure: str,
        *,
        per: float = 1.0,
        beside: float | None = None,
    ) -> Cell:
        """Return the median, with how far the seeds spread, for a table."""
        return _cell(self.values(key, measure, per), beside)

    def profiled(
        self, key: tuple[str, str, int], measure: str, *, beside: float | None = None
    ) -> Cell:
        """Return a number of the difference by the profiled cost, as `cell` does."""
        found = [each.profiled for each in self._by.get(key, []) if each.profiled is not None]
        return _cell([getattr(difference, measure) for difference in found], beside)

    def watched(self, key: tuple[str, str, int], which: int, *, alone: bool = False) -> Cell:
        """Return the watched client's TTFT (seconds) for a table; which: 0 for p50, 1 for p99."""
        runs = (self._alone if alone else self._by).get(key, [])
        values = [each.watched[which] for each in runs if each.watched is not None]
        return _cell([value for value in values if value is not None])

    def throughput_ratios(
        self, systems: Iterable[str], control: str
    ) -> dict[tuple[str, str, int], float]:
        """Return throughput as a part of the control's, by workload, system and replicas.

        Within each seed first, then the median over the seeds.
        """
        wanted, ratios = set(systems), {}
        for (load, system, replicas), ours in self._by.items():
            theirs = self.of(load, control, replicas)
            if system in wanted and theirs:
                ratios[load, system, replicas] = statistics.median(
                    a.summary.throughput / b.throughput for a, b in zip(ours, theirs, strict=True)
                )
        return ratios


def _cell(values: Sequence[float], beside: float | None = None) -> Cell:
    """Their median, with how far they spread."""
    spread = (min(values), max(values)) if len(values) > 1 else None
    return Cell(statistics.median(values) if values else None, beside, spread)
