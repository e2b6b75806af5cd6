"""Runs under two schedulers in turn, and what they say about fairness, memory and speed.

Steps, preemptions, gaps and waits of one load repeat exactly. Times do not: the machine does other
things. So the two schedulers take turns, the order changing from pair to pair. And how long a run
takes depends on who happens to be last, while the batch empties; so each pair draws the lengths of
its load anew. Ratios are taken within a pair; the medians over the pairs are the numbers, of gaps
the largest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

from fairness.bounds import PoolLimits, paper_bound
from fairness.measures import gap
from loadtests.bench_engine.engine import BLOCK, Run, SwitchedEngine
from loadtests.bench_engine.load import FLOOD, MODEST, NoisyNeighbour

VTC, FCFS = "vtc", "fcfs"
CLIENTS = (FLOOD, *MODEST)


@dataclass(frozen=True, slots=True)
class Pair:
    """One run under each scheduler."""

    vtc: Run
    fcfs: Run


def pairs(engine: SwitchedEngine, load: NoisyNeighbour, count: int) -> Iterator[Pair]:
    """Run both schedulers ``count`` times in turn, after one run of each that warms up.

    The lengths of pair k are drawn from the load's seed + k.
    """
    from replicas.scheduler import FairScheduler

    warm_up = NoisyNeighbour(flood=4, burst=1, prompt=load.prompt, output=8).arrivals()
    for kind in (engine.stock, FairScheduler):
        engine.run(kind, warm_up)
    for number in range(count):
        arrivals = replace(load, seed=load.seed + number).arrivals()
        runs = {}
        for kind in (engine.stock, FairScheduler)[:: -1 if number % 2 else 1]:
            runs[kind] = engine.run(kind, arrivals)
        yield Pair(vtc=runs[FairScheduler], fcfs=runs[engine.stock])


def worst_gap(run: Run) -> float:
    """Return the largest gap in service between the flooder and a modest client.

    Each is looked at while both have requests that wait for their first token: who does not ask
    is not owed anything.
    """
    flood_start, flood_end = run.backlog[FLOOD]
    return max(
        gap(
            run.deliveries,
            (FLOOD, client),
            max(flood_start, run.backlog[client][0]),
            min(flood_end, run.backlog[client][1]),
        )
        for client in MODEST
    )


def bound(load: NoisyNeighbour, blocks: int) -> float:
    """Return the paper's 2U for this memory: what VTC promises the gap to stay under."""
    return paper_bound(
        PoolLimits(
            replicas=1,
            longest_input=load.longest_prompt,
            longest_output=load.longest - load.longest_prompt,
            window=0,
            batch_tokens=blocks * BLOCK,
        )
    )


def summary(results: list[Pair], load: NoisyNeighbour, blocks: int) -> dict[str, Any]:
    """Return all numbers, rounded for reading."""
    every = {VTC: [pair.vtc for pair in results], FCFS: [pair.fcfs for pair in results]}
    numbers: dict[str, Any] = {
        "throughput_ratio": _ratio(pair.fcfs.wall_s / pair.vtc.wall_s for pair in results),
        "throughput_ratio_cpu": _ratio(pair.fcfs.cpu_s / pair.vtc.cpu_s for pair in results),
        "loaded_ratio": _ratio(p.vtc.loaded_rate(0) / p.fcfs.loaded_rate(0) for p in results),
        "loaded_ratio_cpu": _ratio(p.vtc.loaded_rate(1) / p.fcfs.loaded_rate(1) for p in results),
        "schedule_ratio": _ratio(
            _scheduling(pair.vtc) / _scheduling(pair.fcfs) for pair in results
        ),
        "bound_2u": bound(load, blocks),
        "same_answers": round(
            fmean(
                a == b
                for pair in results
                for a, b in zip(pair.vtc.answers, pair.fcfs.answers, strict=True)
            ),
            3,
        ),
    }
    for name, runs in every.items():
        numbers |= {
            f"{name}_tps": round(median(run.tokens / run.wall_s for run in runs)),
            f"{name}_steps": median(run.steps for run in runs),
            f"{name}_loaded_steps": median(run.loaded_steps for run in runs),
            f"{name}_computed": median(run.computed for run in runs),
            f"{name}_schedule_us": round(median(_scheduling(run) for run in runs), 1),
            f"preemptions_{name}": median(run.preemptions.total() for run in runs),
            f"gap_{name}": max(map(worst_gap, runs)),
            f"wait_steps_{name}": {
                client: median(median(run.waits[client]) for run in runs) for client in CLIENTS
            },
        }
    numbers["preemptions_by_client"] = {
        name: {client: median(run.preemptions[client] for run in runs) for client in CLIENTS}
        for name, runs in every.items()
    }
    numbers["pairs"] = [
        {
            f"{name}_{what}": round(getattr(run, what), 3)
            for name, run in ((VTC, pair.vtc), (FCFS, pair.fcfs))
            for what in ("wall_s", "cpu_s")
        }
        for pair in results
    ]
    return numbers


def _scheduling(run: Run) -> float:
    return run.schedule_us + run.update_us


def _ratio(values: Iterator[float]) -> float:
    return round(median(values), 3)
