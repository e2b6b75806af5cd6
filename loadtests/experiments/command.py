"""What the experiments' commands share: options, progress, tables on the terminal, the last line.

Progress goes to standard error, tables to standard output, and the last line there is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as Printed

from loadtests.experiments.play import Played, Trial, play_all
from loadtests.report.document import Report, Table, number_in
from loadtests.report.page import save


def options(
    module: str, text: str | None, out: Path, *, seeds: bool = True
) -> argparse.ArgumentParser:
    """Return the options that all experiments have. seeds: is each made more than once?"""
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if seeds:
        parser.add_argument("--seeds", type=_seeds, default=5, metavar="N", help="runs of each (5)")
    parser.add_argument("--out", type=Path, default=out, help=f"folder of the report ({out})")
    parser.add_argument(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="processes; the result does not depend on it (one per core)",
    )
    return parser


def _seeds(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("at least one")
    return count


def played(trials: Sequence[Trial], workers: int) -> list[Played]:
    """Play all trials under a progress bar."""
    with _bar(len(trials)) as advance:
        return play_all(trials, workers=workers, done=advance)


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[Trial], None]]:
    columns = (
        TextColumn("simulating"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=total)

        def advance(trial: Trial) -> None:
            text = f"{trial.workload}, {trial.system}, R = {trial.replicas}"
            progress.update(task, advance=1, description=text)

        yield advance


def finish(report: Report, folder: Path, name: str, started: float) -> None:
    """Save the report, show its tables, and print the numbers as the last line."""
    html, data = save(report, folder, name)
    console = Console(highlight=False)
    for section in report.sections:
        for block in section.blocks:
            if isinstance(block, Table):
                console.print(_printed(section.heading, block))
    console.print(
        f"{html} and {data}; {time.monotonic() - started:.0f} s", markup=False, soft_wrap=True
    )
    sys.stdout.write(json.dumps(report.numbers) + "\n")


def _printed(title: str, table: Table) -> Printed:
    printed = Printed(
        box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), title=title, title_justify="left",
        caption=table.note, caption_justify="left",
    )  # fmt: skip
    printed.add_column(table.first)
    for column in table.columns:
        printed.add_column("\n".join(filter(None, (column.name, column.unit))), justify="right")
    best = [table.best(k) for k in range(len(table.columns))]
    for row in table.rows:
        cells = []
        for column, value, winner in zip(table.columns, row.values, best, strict=True):
            number = number_in(value)
            if number is None:
                cells.append(value if isinstance(value, str) else "-")
                continue
            shown = f"{number:,.{column.digits}f}"
            wins = row.ranks and winner is not None and round(number, column.digits) == winner
            cells.append(f"[bold]{shown}[/bold]" if wins else shown)
            beside = getattr(value, "beside", None)
            if beside is not None:
                cells[-1] += f" [dim]({beside:,.{column.digits}f})[/dim]"
        printed.add_row(row.name, *cells)
    return printed
