"""Which system shares a cluster best? Fairlane beside the others, on one server and on four.

R replicas get R copies of a workload, of the same clients, each arrival put off by its own random
time of up to 5 s, so a perfect cluster of R shares like one server: service differences are
divided by R. Medians over seeds. The systems bind requests to servers at arrival or late, count in
each server or for all, and charge lengths as they are made or in advance.

Writes cluster.html and cluster.json; prints tables, and as its last line the main numbers as JSON
(R is the largest asked for, 4 by default):

  arena_r4_avg_diff_per_r     average service difference on the arena trace / R, service/s: one
                              exact queue with the product's rules (predictions, burst)
  arena_r4_small_p99_ttft_s   p99 time to first token of all but the three largest clients, s
  overload_r4_gap, overload_r4_pred_gap    gap of two clients that want too much, service: VTC as
                              the paper has it, and with the product's rules; at the paper's ticks,
                              counted from 30 s on
  default_arena_r4_avg_diff_per_r, default_overload_r4_gap   the product's default settings; the
                              gap is the largest over the seeds
  ..._gap_any_moment          the same gaps at all times, from the start of the common backlog
  min_throughput_vs_fcfs      worst throughput of these, as a part of FCFS's

examples:
  python -m loadtests.experiments.cluster                        R = 1 and 4, five seeds
  python -m loadtests.experiments.cluster --replicas 1,4,16 --seeds 3
  python -m loadtests.experiments.cluster --systems fcfs,vtc,drr --seeds 1
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fairness.bounds import PoolLimits, paper_bound
from loadtests.experiments import command
from loadtests.experiments import hard_cases as cases
from loadtests.experiments.play import Results, Trial
from loadtests.experiments.systems import CONTROL, DEFAULT, EXACT, IDEAL, PREDICTED, title
from loadtests.experiments.throughput import throughput_section
from loadtests.outcome import Run
from loadtests.report import figures
from loadtests.report.document import Column, Figure, Report, Row, Section, Table

RIVALS = {
    "overload": ("client1", "client2"),
    "overload-multi": tuple(f"client{k}" for k in range(1, 9)),
}
SYSTEMS = tuple(
    dict.fromkeys(
        (
            CONTROL, "local-vtc-round-robin", "local-vtc-least-loaded",
            "global-counters-at-arrival", "drr", "aibrix-vtc-basic", "llm-d-round-robin",
            "llm-d-las", EXACT, "vtc-predicted", "vtc-half-predicted", "vtc-oracle", PREDICTED,
            "vtc-burst", IDEAL, "fairlane-exact", "fairlane-unpredicted", DEFAULT,
        )
    )
)  # fmt: skip
"""Each once, whichever of them the default is."""
DRAWN = (CONTROL, "local-vtc-least-loaded", EXACT, IDEAL, DEFAULT)
OURS = (EXACT, PREDICTED, IDEAL, DEFAULT)
HARD_CASES_BY = (CONTROL, "local-vtc-least-loaded", EXACT, DEFAULT)


def trials(
    systems: Sequence[str], replicas: Sequence[int], seeds: int, *, hard_cases: bool = False
) -> list[Trial]:
    """Return all runs of the experiment. Those of the first seed and most replicas may be drawn."""
    plan = []
    for seed in range(1, seeds + 1):
        for count in replicas:
            drawn = DRAWN if seed == 1 and count == max(replicas) else ()
            for name in ("arena", *RIVALS):
                keep = drawn if name != "overload-multi" else ()
                plan += [
                    Trial(name, system, count, seed, RIVALS.get(name, ()), system in keep)
                    for system in systems
                ]
        few = [system for system in HARD_CASES_BY if system in systems]
        plan += cases.trials(few, max(replicas), seed, every=hard_cases)
    return plan


def numbers(results: Results, replicas: int) -> dict[str, float | None]:
    """Return the numbers to be judged by; the module's docstring says what they are."""
    r = f"r{replicas}"
    ratios = results.throughput_ratios(OURS, CONTROL)
    exact, ideal, default = (("overload", system, replicas) for system in (EXACT, IDEAL, DEFAULT))
    arena, arena_default = ("arena", IDEAL, replicas), ("arena", DEFAULT, replicas)
    return {
        f"arena_{r}_avg_diff_per_r": results.median(arena, "avg_diff", replicas),
        f"arena_{r}_small_p99_ttft_s": results.median(arena, "small_p99_ttft"),
        f"overload_{r}_gap": results.median(exact, "gap_at_ticks"),
        f"overload_{r}_pred_gap": results.median(ideal, "gap_at_ticks"),
        f"default_arena_{r}_avg_diff_per_r": results.median(arena_default, "avg_diff", replicas),
        f"default_overload_{r}_gap": results.largest(default, "gap_at_ticks"),
        f"overload_{r}_gap_any_moment": results.median(exact, "gap"),
        f"default_overload_{r}_gap_any_moment": results.largest(default, "gap"),
        "min_throughput_vs_fcfs": min(ratios.values(), default=None),
    }


def report(
    results: Results,
    systems: Sequence[str],
    replicas: Sequence[int],
    seeds: int,
    *,
    hard_cases: bool = False,
) -> Report:
    """Lay out what was found."""
    most = max(replicas)
    found = numbers(results, most)
    blocks: list[Section] = [
        Section(
            f"{count} {'server' if count == 1 else 'servers'}",
            (
                _table(results, systems, count),
                *(_pictures(results, count) if count == most else ()),
            ),
        )
        for count in sorted(replicas, reverse=True)
    ]
    few = [system for system in HARD_CASES_BY if system in systems]
    blocks.append(cases.neighbours(results, few, most))
    if hard_cases:
        blocks.append(cases.everything(results, few, most))
    blocks.append(throughput_section(results.throughput_ratios(OURS, CONTROL)))
    fcfs = results.median(("arena", CONTROL, most), "avg_diff", most)
    ours = found[f"arena_r{most}_avg_diff_per_r"]
    lead = f"Fair sharing on {most} servers, simulated."
    if ours is not None and fcfs is not None:
        lead = (
            f"On {most} servers, one fair queue leaves an average service difference of "
            f"{ours:,.0f} per server; first come, first served leaves {fcfs:,.0f}."
        )
    return Report(
        title="Sharing a cluster",
        lead=lead,
        sections=blocks,
        facts=(
            f"Simulated servers after a recorded A10G; medians of {seeds} seeds, small print "
            "their range. No network: messages take no time unless a system says otherwise.",
        ),
        numbers={**found, "seeds": seeds},
    )


def _table(results: Results, systems: Sequence[str], count: int) -> Table:
    rows = []
    for system in systems:
        arena, two, eight = ((name, system, count) for name in ("arena", *RIVALS))
        rows.append(
            Row(
                title(system),
                (
                    results.cell(arena, "avg_diff", per=count),
                    results.cell(arena, "small_p99_ttft"),
                    results.cell(arena, "throughput", per=count),
                    results.cell(two, "gap_at_ticks"),
                    results.cell(two, "gap"),
                    results.cell(eight, "gap_at_ticks"),
                ),
            )
        )
    return Table(
        "system",
        (
            Column("arena: average difference / R", 0, best="low", unit="service/s"),
            Column("arena: small clients' p99 TTFT", 1, best="low", unit="s"),
            Column("arena: throughput / R", 0, best="high", unit="tokens/s"),
            Column("two overload: gap at ticks", 0, best="low", unit="service"),
            Column("two overload: gap at any moment", 0, unit="service"),
            Column("eight overload: gap at ticks", 0, best="low", unit="service"),
        ),
        tuple(rows),
        note="Gap: how far apart the clients' service gets while all of them wait; at ticks: at "
        "the paper's 19 moments and counted from 30 s on; at any moment: from the start of their "
        "common backlog, with what was under way then.",
    )


def _pictures(results: Results, count: int) -> tuple[Figure, ...]:
    arena, two = (_drawn(results, name, count) for name in ("arena", "overload"))
    pictures: list[Figure] = []
    if arena:
        names = [title(run.system) for run in arena]
        pictures += [
            figures.difference_over_time(arena, names=names),
            figures.ttft_of_clients(arena, names=names),
        ]
    if two:
        names = [title(run.system) for run in two]
        pictures += [
            figures.service_over_time(two, names=names, clients=RIVALS["overload"]),
            figures.gap_over_time(two, RIVALS["overload"], names=names, bound=_bound(two[0])),
        ]
    return tuple(pictures)


def _bound(run: Run) -> float:
    """The paper's 2U for the simulated servers: all their memory full of one client's output."""
    from loadtests.simulator.hardware import A10G

    limits = PoolLimits(
        replicas=run.replicas,
        longest_input=max(request.input_tokens for request in run.workload.requests),
        longest_output=max(request.output_tokens for request in run.workload.requests),
        window=A10G.max_running,
        batch_tokens=A10G.kv_tokens,
    )
    return paper_bound(limits)


def _drawn(results: Results, workload: str, count: int) -> list[Run]:
    runs = (results.run(workload, system, count) for system in DRAWN)
    return [run for run in runs if run is not None]


def _replicas(text: str) -> list[int]:
    counts = sorted({int(part) for part in text.split(",")})
    if counts[0] < 1:
        raise argparse.ArgumentTypeError("at least one replica")
    return counts


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment; return the exit status."""
    from loadtests.simulator.named import named

    parser = command.options("loadtests.experiments.cluster", __doc__, Path(".local/cluster"))
    parser.add_argument(
        "--replicas", type=_replicas, default=[1, 4], metavar="R,R", help="how many servers (1,4)"
    )
    parser.add_argument(
        "--systems", default=",".join(SYSTEMS), metavar="NAME,NAME", help=f"({','.join(SYSTEMS)})"
    )
    parser.add_argument(
        "--hard-cases", action="store_true", help="all of our own workloads, too (minutes more)"
    )
    chosen = parser.parse_args(arguments)
    systems = chosen.systems.split(",")
    for system in systems:
        try:
            named(system)
        except ValueError as error:
            parser.error(str(error))
    started = time.monotonic()
    plan = trials(systems, chosen.replicas, chosen.seeds, hard_cases=chosen.hard_cases)
    results = Results(command.played(plan, chosen.workers))
    made = report(results, systems, chosen.replicas, chosen.seeds, hard_cases=chosen.hard_cases)
    command.finish(made, chosen.out, "cluster", started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
