"""The VTC paper's tables again, on one simulated server, beside what its authors recorded.

The same requests on a model of the same server (one A10G), served by the paper's policies and by
Fairlane: the arena trace (table 2), two and eight clients that want too much (tables 5 and 6), both
with service by the paper's profiled cost (tables 3 and 4), and the suites behind its figures. Every
number is the median over seeds, each of which puts every arrival off by up to 5 s of its own:
single runs of the average difference move by a tenth with the phase. The paper's numbers are of one
recorded run each.

Writes paper.html and paper.json; prints tables, and as its last line the main numbers as JSON:

  arena_r1_avg_diff        average service difference on the arena trace, service/s: one exact queue
                           with the product's rules (predictions by the pool's average, burst)
  arena_r1_vtc_avg_diff    of VTC as the paper has it
  arena_r1_pred_avg_diff   with predictions, without burst
  arena_r1_default_avg_diff  the same of the product's default settings
  min_throughput_vs_fcfs   worst throughput of these, as a part of FCFS's, over all workloads (the
                           report's last table says where)

examples:
  python -m loadtests.experiments.paper                  five seeds, a few minutes
  python -m loadtests.experiments.paper --seeds 1        a look
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from loadtests.experiments import command
from loadtests.experiments.play import Results, Trial
from loadtests.experiments.recorded import beside
from loadtests.experiments.systems import (
    BY_PROFILE,
    CONTROL,
    DEFAULT,
    EXACT,
    IDEAL,
    PREDICTED,
    refuses,
    title,
)
from loadtests.experiments.throughput import throughput_section
from loadtests.outcome import Run
from loadtests.report import figures
from loadtests.report.document import Column, Figure, Report, Row, Section, Table

ARENA = "arena"
ARENA_SYSTEMS = (
    CONTROL, "lcf", EXACT, "vtc-predicted", "vtc-oracle", PREDICTED, IDEAL, DEFAULT,
    "rpm5", "rpm20", "rpm30",
)  # fmt: skip
OVERLOADS = {
    "overload": ("client1", "client2"),
    "overload-multi": tuple(f"client{k}" for k in range(1, 9)),
}
OVERLOAD_SYSTEMS = (
    CONTROL, EXACT, "vtc-predicted", "vtc-noisy-oracle", "vtc-oracle", PREDICTED, IDEAL,
    DEFAULT,
)  # fmt: skip
PROFILED = {
    ARENA: (CONTROL, "lcf", EXACT, BY_PROFILE, DEFAULT, "rpm5", "rpm20", "rpm30"),
    "overload": (CONTROL, EXACT, BY_PROFILE, DEFAULT),
}
"""Of these workloads and systems the service difference is measured by the profiled cost too."""
FIGURE_SUITES = (
    "proportional", "on_off_less", "on_off_overload", "increase", "poisson_on_off_overload",
    "poisson_short_long", "poisson_short_long_2", "dist_shift",
)  # fmt: skip
SUITE_SYSTEMS = (CONTROL, "lcf", EXACT, DEFAULT)
DRAWN = (CONTROL, EXACT, DEFAULT)
OURS = (EXACT, PREDICTED, IDEAL, DEFAULT)


def trials(seeds: int) -> list[Trial]:
    """Return all runs of the experiment. The first seed's are kept where they are drawn."""
    plan = []
    for seed in range(1, seeds + 1):
        first = seed == 1
        plan += [
            Trial(
                name,
                system,
                1,
                seed,
                rivals,
                keep=first and system in DRAWN,
                profiled=system in PROFILED.get(name, ()),
            )
            for name, rivals, systems in (
                (ARENA, (), ARENA_SYSTEMS),
                *((name, rivals, OVERLOAD_SYSTEMS) for name, rivals in OVERLOADS.items()),
            )
            for system in dict.fromkeys((*systems, *PROFILED.get(name, ())))
        ]
        plan += [Trial(name, system, 1, seed) for name in FIGURE_SUITES for system in SUITE_SYSTEMS]
    return plan


def numbers(results: Results) -> dict[str, float | None]:
    """Return the numbers to be judged by; the module's docstring says what they are."""
    ratios = results.throughput_ratios(OURS, CONTROL)
    return {
        "arena_r1_avg_diff": results.median((ARENA, IDEAL, 1), "avg_diff"),
        "arena_r1_vtc_avg_diff": results.median((ARENA, EXACT, 1), "avg_diff"),
        "arena_r1_pred_avg_diff": results.median((ARENA, PREDICTED, 1), "avg_diff"),
        "arena_r1_default_avg_diff": results.median((ARENA, DEFAULT, 1), "avg_diff"),
        "min_throughput_vs_fcfs": min(ratios.values(), default=None),
    }


def report(results: Results, seeds: int) -> Report:
    """Lay out what was found."""
    found = numbers(results)
    fcfs = results.median((ARENA, CONTROL, 1), "avg_diff")
    return Report(
        title="The VTC paper again",
        lead=(
            f"On the paper's real workload, VTC leaves an average service difference of "
            f"{_text(found['arena_r1_vtc_avg_diff'])} where first come, first served leaves "
            f"{_text(fcfs)} (the paper's server was recorded at 252 and 434), and with Fairlane's "
            f"rules {_text(found['arena_r1_avg_diff'])}."
        ),
        sections=(
            _arena(results),
            *(_overload(results, name) for name in OVERLOADS),
            _profiled(results),
            _suites(results),
            throughput_section(results.throughput_ratios(OURS, CONTROL)),
        ),
        facts=(
            f"Simulated: one server, after the recorded A10G; medians of {seeds} seeds, small "
            "print their range.",
            "Recorded numbers: Ying1123/VTC-artifact; Sheng et al., OSDI 2024.",
        ),
        numbers={**found, "seeds": seeds},
    )


def _arena(results: Results) -> Section:
    rows = []
    for system in ARENA_SYSTEMS:
        key, paper = (ARENA, system, 1), beside(ARENA, system)
        cells = [
            results.cell(key, measure, beside=getattr(paper, measure, None))
            for measure in ("max_diff", "avg_diff", "var_diff")
        ]
        cells.append(results.cell(key, "small_p99_ttft"))
        cells.append(results.cell(key, "throughput", beside=paper.throughput if paper else None))
        cells.append(results.cell(key, "refused"))
        rows.append(Row(title(system), tuple(cells), ranks=not refuses(system)))
    table = Table(
        "policy",
        (
            Column("largest difference", 0, unit="service/s"),
            Column("average difference", 0, best="low", unit="service/s"),
            Column("variance", 0),
            Column("small clients' p99 TTFT", 1, best="low", unit="s"),
            Column("throughput", 0, best="high", unit="tokens/s"),
            Column("refused", 0, unit="requests"),
        ),
        tuple(rows),
        note="The average is the number to compare. Who refuses requests (at most so many a "
        "minute) is not ranked: what it refuses counts neither as asked for nor as received.",
        beside="paper",
    )
    drawn = _drawn(results, ARENA)
    pictures = _pictures(drawn)
    return Section(
        "The real workload: 27 clients, 1,500 requests, ten minutes (table 2)", (table, *pictures)
    )


def _overload(results: Results, name: str) -> Section:
    rows = []
    for system in OVERLOAD_SYSTEMS:
        key, paper = (name, system, 1), beside(name, system)
        rows.append(
            Row(
                title(system),
                (
                    results.cell(key, "max_diff", beside=paper.max_diff if paper else None),
                    results.cell(key, "avg_diff", beside=paper.avg_diff if paper else None),
                    results.cell(key, "gap_at_ticks"),
                    results.cell(key, "gap"),
                    results.cell(key, "jain"),
                    results.cell(key, "throughput", beside=paper.throughput if paper else None),
                ),
            )
        )
    table = Table(
        "policy",
        (
            Column("largest difference", 1, unit="service/s"),
            Column("average difference", 1, best="low", unit="service/s"),
            Column("gap at the paper's ticks", 0, best="low", unit="service"),
            Column("gap at any moment", 0, unit="service"),
            Column("Jain index", 4, best="high"),
            Column("throughput", 0, best="high", unit="tokens/s"),
        ),
        tuple(rows),
        note="Gap: how far apart the clients' service gets while all of them wait; at any moment "
        "it begins with what was under way when the last of them began to wait.",
        beside="paper",
    )
    count = len(OVERLOADS[name])
    drawn = _drawn(results, name)
    pictures = [
        figures.service_over_time(drawn, names=[title(run.system) for run in drawn], most=8)
    ] if drawn else []  # fmt: skip
    words = {2: "Two", 8: "Eight"}
    return Section(f"{words.get(count, count)} clients that want too much", (table, *pictures))


def _profiled(results: Results) -> Section:
    rows = []
    for name, systems in PROFILED.items():
        for system in systems:
            key, paper = (name, system, 1), beside(name, system, profiled=True)
            rows.append(
                Row(
                    f"{name}: {title(system)}",
                    (
                        results.profiled(key, "maximum", beside=paper.max_diff if paper else None),
                        results.profiled(key, "average", beside=paper.avg_diff if paper else None),
                        results.profiled(key, "variance", beside=paper.var_diff if paper else None),
                        results.cell(key, "throughput", beside=paper.throughput if paper else None),
                    ),
                )
            )
    table = Table(
        "workload and policy",
        (
            Column("largest difference", 1, unit="ms/s"),
            Column("average difference", 1, unit="ms/s"),
            Column("variance", 0),
            Column("throughput", 0, unit="tokens/s"),
        ),
        tuple(rows),
        note="Measured by the time that requests take of the recorded server, whatever they were "
        "charged by: tokens, or this cost where the policy's name says so. What is asked for is "
        "counted in tokens all the same, as in the paper.",
        beside="paper",
    )
    return Section("Service by the profiled cost (tables 3 and 4)", (table,))


def _suites(results: Results) -> Section:
    rows = []
    for name in FIGURE_SUITES:
        for system in SUITE_SYSTEMS:
            key, paper = (name, system, 1), beside(name, system)
            rows.append(
                Row(
                    f"{name}: {title(system)}",
                    (
                        results.cell(key, "avg_diff", beside=paper.avg_diff if paper else None),
                        results.cell(key, "ttft_p99"),
                        results.cell(key, "throughput", beside=paper.throughput if paper else None),
                    ),
                )
            )
    table = Table(
        "suite and policy",
        (
            Column("average difference", 1, unit="service/s"),
            Column("p99 TTFT", 1, unit="s"),
            Column("throughput", 0, unit="tokens/s"),
        ),
        tuple(rows),
        beside="paper",
    )
    return Section("The suites behind the paper's figures", (table,))


def _drawn(results: Results, workload: str) -> list[Run]:
    runs = (results.run(workload, system) for system in DRAWN)
    return [run for run in runs if run is not None]


def _pictures(drawn: list[Run]) -> list[Figure]:
    if not drawn:
        return []
    names = [title(run.system) for run in drawn]
    return [
        figures.difference_over_time(drawn, names=names),
        figures.service_over_time(drawn, names=names),
        figures.ttft_of_clients(drawn, names=names),
    ]


def _text(value: float | None) -> str:
    return "nothing measured" if value is None else f"{value:,.0f}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment; return the exit status."""
    parser = command.options("loadtests.experiments.paper", __doc__, Path(".local/paper"))
    chosen = parser.parse_args(arguments)
    started = time.monotonic()
    results = Results(command.played(trials(chosen.seeds), chosen.workers))
    command.finish(report(results, chosen.seeds), chosen.out, "paper", started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
