"""A real run on the terminal: a line that moves while it is played, and a table at its end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich import box
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from loadtests.driver import Progress
from loadtests.real_run import RealRun
from loadtests.records import LATE_S, ClientSummary
from loadtests.scaling import Demand
from loadtests.workloads.workload import Workload

_ROWS = 12
_ENDINGS = {"done": "done", "refused": "refused", "failed": "failed", "aborted": "left"}
_TOKENS = ("input_tokens", "output_tokens", "service")


@contextlib.contextmanager
def bar(
    console: Console, title: str, workload: Workload, time_scale: float
) -> Iterator[Callable[[Progress], None]]:
    """Show how a fitted workload's run goes; yield the function that moves the line."""
    columns = (
        TextColumn("{task.description:>16}"),
        BarColumn(bar_width=20),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
    )
    seconds = max(workload.last_arrival * time_scale, 0.001)
    with Bar(*columns, console=console) as shown:
        task = shown.add_task(title, total=seconds, state="")

        def advance(now: Progress) -> None:
            completed = min(now.elapsed_s, seconds)
            shown.update(task, completed=completed, state=state(now, len(workload.requests)))

        yield advance
        shown.update(task, completed=seconds)


def state(now: Progress, planned: int) -> str:
    """Say how a run stands; a driver that is late says so in red."""
    late = f"{1000 * now.late_s:.0f} ms late"
    if now.late_s > LATE_S:
        late = f"[bold red]{late}[/]"
    said = f"{now.sent:,} of {planned:,} sent, {now.open.total():,} open, {now.done.total():,} done"
    for count, what in ((now.refused, "refused"), (now.failed, "failed"), (now.aborted, "left")):
        if count:
            said += f", {count:,} {what}"
    return f"{said}, {late}"


def asked(workload: Workload, time_scale: float) -> str:
    """Say what a fitted workload will ask of a server, before it is played."""
    demand = Demand.of(workload, time_scale)
    seconds = workload.last_arrival * time_scale
    tokens = f"{demand.input_tokens_per_s:,.0f} + {demand.output_tokens_per_s:,.0f} tokens/s"
    return (
        f"{workload.name}: {len(workload.requests):,} requests of {len(workload.clients):,} "
        f"clients in {seconds:.0f} s; asks for {demand.requests_per_s:.1f} requests/s, {tokens}"
    )


def clients_table(real: RealRun) -> Table:
    """Lay out what each client received, the largest first; the small are one row together.

    Ways to end that no request took have no column.
    """
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=f"{real.run.system}: {real.run.workload.name}",
        caption="tokens received; service = input + 2 x output; TTFT in seconds of the clock",
    )
    summaries = sorted(real.report.summaries(), key=lambda summary: -summary.service)
    endings = [name for name in _ENDINGS if any(getattr(s, name) for s in summaries)]
    table.add_column("client", no_wrap=True)
    for heading in ("sent", *(_ENDINGS[name] for name in endings)):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("input", "output", "service", "TTFT p50", "p99"):
        table.add_column(heading, justify="right", no_wrap=True)
    shown = _ROWS if len(summaries) > _ROWS + 1 else len(summaries)
    for summary in summaries[:shown]:
        ttfts = (_seconds(summary.ttft_p50), _seconds(summary.ttft_p99))
        table.add_row(summary.client, *_sums([summary], endings), *ttfts)
    if rest := summaries[shown:]:
        table.add_row(f"{len(rest)} others", *_sums(rest, endings), "", "")
    return table


def _sums(summaries: list[ClientSummary], endings: list[str]) -> list[str]:
    counts = [sum(getattr(s, name) for s in summaries) for name in ("requests", *endings)]
    tokens = [sum(getattr(s, name) for s in summaries) for name in _TOKENS]
    return [*(f"{count:,}" for count in counts), *(f"{total / 1000:,.1f}k" for total in tokens)]


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.1f} s"


def findings(real: RealRun) -> list[str]:
    """Say what a reader of the numbers must know."""
    numbers = real.run.numbers or {}
    said = []
    if real.fell_behind:
        said.append(
            f"THE DRIVER FELL BEHIND: one request in a hundred left more than "
            f"{numbers['late_p99_clock_s']:.2f} s late. Lower the load (a larger --time-scale), or "
            "drive from another machine."
        )
    if numbers.get("cut"):
        said.append(
            f"{numbers['cut']:.0f} requests were still open at the end and were closed; "
            "their service counts until then (a longer --drain waits for them)"
        )
    if numbers.get("requests_not_made"):
        said.append(f"{numbers['requests_not_made']:.0f} requests were never sent")
    if numbers.get("prompt_tokens_off", 0.0) >= 1.0:
        said.append(f"prompts were off by {numbers['prompt_tokens_off']:.1f} tokens on average")
    said += [f"{count:,} requests: {text}" for text, count in real.errors.most_common(5)]
    return said
