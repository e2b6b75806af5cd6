"""A day of traffic on a pool that scales by backlog, beside a fleet that is always there.

24 hours of chats at rates that follow the hours (0.6 to 4 servers' worth), and four bursts of batch
jobs of two servers' worth more, are served by simulated A10Gs with a 7B model. Replicas come and go
as Ray Serve's controller has them: the policy is the product's (`replicas.autoscaling:ByBacklog`),
what Serve does around it is Serve's code; a new replica takes three minutes to start, one that is
to go is drained. The fixed fleet has as many as the highest hour with a burst needs at 80%, and
the others no more. They differ by `downscale_delay_s`. Simulated: the servers (times of steps and
memory of an A10G), the network, Serve's timers. Charges are told every second. The same twice for
a seed.

Writes autoscaling.html (with pictures) and autoscaling.json; prints a table, and as its last line
these numbers as JSON, by row:

  gpu_hours                 paid: from the decision to start a replica until it is gone
  waiting_p50_s, _p99_s     arrival to first token, of all requests
  served                    requests, all of them to their last token
  scale_ups, scale_downs    decisions
  thrash                    decisions undone, at least in part, within ten minutes
  streams_cut               requests that a leaving replica could not end within drain_s
  gap                       how far apart the service of the two batch jobs got while both waited,
                            over all bursts, scaling included; null where they never both waited

examples:
  python -m loadtests.experiments.autoscaling                    a day (10 to 20 min, two cores)
  python -m loadtests.experiments.autoscaling --hours 4          a look: the night and its burst
  python -m loadtests.experiments.autoscaling --downscale-delays 60,300,900 --start 600
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from loadtests.experiments import command
from loadtests.experiments.days import Day, Played, play_days
from loadtests.report import figures
from loadtests.report.document import Column, Figure, Report, Row, Section, Table
from loadtests.workloads.day import DAY_S, HOUR_S

COLUMNS = {
    "gpu_hours": Column("GPU-hours", 1, best="low"),
    "waiting_p50_s": Column("waiting, p50", 2, unit="s"),
    "waiting_p99_s": Column("waiting, p99", 1, unit="s"),
    "scale_ups": Column("ups"),
    "scale_downs": Column("downs"),
    "thrash": Column("undone in 10 min"),
    "streams_cut": Column("streams cut"),
    "gap": Column("gap in bursts", 0, unit="service"),
}


def plan(chosen: argparse.Namespace) -> list[Day]:
    """Return the days to play: the fixed fleet, and one for each delay."""
    scaled = [
        Day(chosen.seed, chosen.hours * HOUR_S, chosen.peak, chosen.start, delay)
        for delay in chosen.downscale_delays
    ]
    return [Day(chosen.seed, chosen.hours * HOUR_S, chosen.peak, chosen.start, None), *scaled]


def report(played: Sequence[Played]) -> Report:
    """Lay out what was found."""
    fixed, *scaled = played
    rows = [
        Row(each.day.name, tuple(each.numbers[measure] for measure in COLUMNS)) for each in played
    ]
    table = Table(
        "pool",
        tuple(COLUMNS.values()),
        tuple(rows),
        note="Waiting: arrival to first token. Gap: of two batch jobs while both wait, one of "
        "which asks for twice as much; the bound is "
        f"{fixed.bound:,.0f} with {fixed.day.fleet} replicas.",
    )
    hours = fixed.numbers["gpu_hours"]
    best = min(scaled, key=lambda each: each.numbers["gpu_hours"] or 0.0)
    return Report(
        title="A day of traffic, scaled by backlog",
        lead=(
            f"The pool that scales pays for {best.numbers['gpu_hours']:,.0f} GPU-hours where a "
            f"fleet for the peak pays for {hours:,.0f}; no stream was cut."
            if not any(each.numbers["streams_cut"] for each in played)
            else "Streams were cut: a fault."
        ),
        sections=(Section("In all", (table,)), Section("Over the day", _pictures(played))),
        facts=(
            f"Simulated A10Gs with a 7B model; {fixed.numbers['served']:,} requests; a replica "
            f"takes {fixed.day.start_s:.0f} s to start; seed {fixed.day.seed}.",
        ),
        numbers={each.day.name: each.numbers for each in played},
    )


def _pictures(played: Sequence[Played]) -> tuple[Figure, ...]:
    fixed, *scaled = played
    paid = {each.day.name: (each.hours, each.paid) for each in scaled}
    waiting = {each.day.name: (each.hours, each.waiting) for each in played}
    return (
        figures.steps_over_time(
            {"asked for": (fixed.asked_hours, fixed.asked), **paid},
            x="hour of the day",
            y="GPUs",
            caption="GPUs paid for, those of starting and leaving replicas included, and how many "
            "servers' worth of requests came (means of ten minutes).",
        ),
        figures.steps_over_time(
            waiting,
            x="hour of the day",
            y="requests that wait",
            caption="Requests in the global queue, at the end of each minute.",
        ),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment; return the exit status: 1 if a stream was cut."""
    chosen = _options().parse_args(arguments)
    started = time.monotonic()
    played = play_days(plan(chosen), workers=chosen.workers)
    made = report(played)
    command.finish(made, chosen.out, "autoscaling", started)
    return int(any(each.numbers["streams_cut"] for each in played))


def _options() -> argparse.ArgumentParser:
    module, out = "loadtests.experiments.autoscaling", Path(".local/autoscaling")
    parser = command.options(module, __doc__, out, seeds=False)
    parser.add_argument("--seed", type=int, default=1, help="of the traffic (1)")
    parser.add_argument(
        "--hours", type=_above_zero, default=DAY_S / HOUR_S, help="from midnight (24)"
    )
    parser.add_argument(
        "--peak", type=_above_zero, default=4.0, help="servers' worth at the highest hour (4)"
    )
    parser.add_argument(
        "--start", type=_above_zero, default=180.0, metavar="S", help="to start a replica (180)"
    )
    parser.add_argument(
        "--downscale-delays", type=_delays, default=[300.0, 900.0], metavar="S,S", help="(300,900)"
    )
    return parser


def _above_zero(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError("must be above zero")
    return value


def _delays(text: str) -> list[float]:
    return [_above_zero(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
