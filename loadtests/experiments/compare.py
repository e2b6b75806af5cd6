"""One workload, yours or a named one, under several systems on so many simulated servers.

A workload is a name of `fairlane loadtest --list` or a CSV file with the columns
arrival_s,client,input_tokens,output_tokens. Each server gets a copy of it, of the same clients,
with every arrival put off by up to 5 s; ours (zipf_tenants, ...) grow with the number of servers.
The servers are A10G with a 7B model: scale your arrivals so that they want more than there is,
about 770 input and output tokens a second each, or there is nothing to share.

Writes compare.html and compare.json; prints a table, and as its last line all medians as JSON.

examples:
  python -m loadtests.experiments.compare --workload zipf_tenants
  python -m loadtests.experiments.compare --workload my.csv --replicas 4 --systems fcfs,vtc,fairlane
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from loadtests.experiments import command
from loadtests.experiments.play import Results, Trial
from loadtests.experiments.systems import CONTROL, DEFAULT, EXACT, title
from loadtests.report import figures
from loadtests.report.document import Column, Figure, Report, Row, Section, Table
from loadtests.workloads.registry import workload

SYSTEMS = (CONTROL, "local-vtc-least-loaded", EXACT, DEFAULT)
MEASURES = {
    "avg_diff": Column("average difference", 0, best="low", unit="service/s"),
    "gap": Column("largest gap", 0, best="low", unit="service"),
    "jain": Column("Jain index", 3, best="high"),
    "small_p99_ttft": Column("small clients' p99 TTFT", 1, best="low", unit="s"),
    "ttft_p50": Column("everyone's TTFT p50", 1, unit="s"),
    "throughput": Column("throughput", 0, best="high", unit="tokens/s"),
    "refused": Column("refused", 0, unit="requests"),
}


def trials(name: str, systems: Sequence[str], replicas: int, seeds: int) -> list[Trial]:
    """Return all runs; those of the first seed are kept, to be drawn."""
    return [
        Trial(name, system, replicas, seed, keep=seed == 1)
        for seed in range(1, seeds + 1)
        for system in systems
    ]


def report(
    results: Results, name: str, systems: Sequence[str], replicas: int, seeds: int
) -> Report:
    """Lay out what was found."""
    keys = {system: (name, system, replicas) for system in systems}
    rows = (
        Row(title(system), tuple(results.cell(key, measure) for measure in MEASURES))
        for system, key in keys.items()
    )
    table = Table(
        "system",
        tuple(MEASURES.values()),
        tuple(rows),
        note="Difference, throughput: of all servers together. Gap and Jain index: of the clients "
        "that wait for at least half of the time, while all of them wait.",
    )
    return Report(
        title=f"{Path(name).stem}, simulated",
        lead=f"The same requests on {replicas} simulated servers, under {len(systems)} systems.",
        sections=[Section("In all", (table,)), Section("Over time", _pictures(results, keys))],
        facts=[
            f"Simulated servers after a recorded A10G; medians of {seeds} seeds, small print "
            "their range; pictures: of the first."
        ],
        numbers={
            system: {measure: results.median(key, measure) for measure in MEASURES}
            for system, key in keys.items()
        },
    )


def _pictures(results: Results, keys: dict[str, tuple[str, str, int]]) -> tuple[Figure, ...]:
    kept = [run for key in keys.values() if (run := results.run(*key)) is not None]
    names = [title(run.system) for run in kept]
    return (
        figures.service_over_time(kept, names=names),
        figures.difference_over_time(kept, names=names),
        figures.ttft_of_clients(kept, names=names),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; return the exit status."""
    from loadtests.simulator.named import named

    parser = command.options("loadtests.experiments.compare", __doc__, Path(".local/compare"))
    parser.add_argument("--workload", required=True, metavar="NAME|FILE.csv")
    parser.add_argument("--replicas", type=_count, default=1, metavar="R", help="servers (1)")
    parser.add_argument(
        "--systems", default=",".join(SYSTEMS), metavar="A,B", help=f"({','.join(SYSTEMS)})"
    )
    chosen = parser.parse_args(arguments)
    systems = chosen.systems.split(",")
    try:
        for system in systems:
            named(system)
        workload(chosen.workload, replicas=chosen.replicas, seed=1)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    started = time.monotonic()
    plan = trials(chosen.workload, systems, chosen.replicas, chosen.seeds)
    results = Results(command.played(plan, chosen.workers))
    made = report(results, chosen.workload, systems, chosen.replicas, chosen.seeds)
    command.finish(made, chosen.out, "compare", started)
    return 0


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("at least one")
    return count


if __name__ == "__main__":
    sys.exit(main())
