"""The bench's tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table

from loadtests.bench_queue.measures import Round, ServerResult, cost_ratio, of
from loadtests.bench_queue.profile import Cost

TOP = 16
EVERYTHING = 0.9  # what calls nearly all the rest tells nothing


def tables(results: Sequence[ServerResult]) -> Iterator[Table]:
    """All of them, for all servers."""
    yield _closed(results)
    yield _offered(results)
    yield _latency(results)


def _table(title: str, caption: str, *headings: str) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=title,
        caption=caption,
        title_justify="left",
    )
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number == 0 else "right", no_wrap=True)
    return table


def _closed(results: Sequence[ServerResult]) -> Table:
    table = _table(
        "As fast as it goes",
        "CPU in microseconds a request",
        "server", "routers", "grants/s", "server", "router", "replica",
    )  # fmt: skip
    for result in results:
        for processes, rounds in result.closed.items():
            table.add_row(
                result.server,
                str(processes),
                of(rounds, "rate").show(),
                *_cpu(rounds),
            )
    return table


def _offered(results: Sequence[ServerResult]) -> Table:
    table = _table(
        "By known clients, at the offered rate; and backlogged, with few credits",
        "CPU in microseconds a request; ratio to the fewest clients, within rounds",
        "server", "clients", "requests/s", "server", "router", "replica", "ratio", "bytes a client",
    )  # fmt: skip
    for result in results:
        few = min(result.offered)
        for known, rounds in result.offered.items():
            last = known == max(result.offered)
            size = result.bytes_per_idle_client
            table.add_row(
                result.server,
                f"{known:,} known",
                of(rounds, "rate").show(),
                *_cpu(rounds),
                cost_ratio(rounds, result.offered[few]).show(2),
                f"{size:.0f}" if last and size is not None else "",
            )
        if result.backlog:
            table.add_row(
                result.server,
                "backlogged",
                of(result.backlog, "rate").show(),
                *_cpu(result.backlog),
                cost_ratio(result.backlog, result.offered[few]).show(2),
                "",
            )
    return table


def _latency(results: Sequence[ServerResult]) -> Table:
    table = _table(
        "From submit to grant, one router process at the offered rate, credits free",
        "due: from the moment the request was due, not from when the router came to submit it",
        "server", "clients", "p50 ms", "p99 ms", "due p99 ms", "refused",
    )  # fmt: skip
    for result in results:
        for known, rounds in result.offered.items():
            table.add_row(
                result.server,
                f"{known:,} known",
                of(rounds, "p50_ms").show(2),
                of(rounds, "p99_ms").show(2),
                of(rounds, "late_p99_ms").show(2),
                str(sum(r.refused for r in rounds)),
            )
    return table


def _cpu(rounds: Sequence[Round]) -> tuple[str, str, str]:
    return (
        of(rounds, "server_us").show(),
        of(rounds, "router_us").show(),
        of(rounds, "replica_us").show(),
    )


def verb_tables(server: str, costs: Sequence[Cost]) -> Iterator[Table]:
    """What each verb costs a server, and by which commands a request is made."""
    verbs = _table(
        f"{server}: CPU a verb, in calls of 20",
        "microseconds; commands: those the script makes, and the time in them",
        "verb", "server", "script", "commands", "in commands",
    )  # fmt: skip
    for cost in costs:
        verbs.add_row(
            cost.what,
            f"{cost.cpu:.1f}",
            f"{cost.script:.1f}",
            f"{cost.made:.1f}",
            f"{cost.in_commands:.1f}",
        )
    yield verbs
    whole = costs[-2:]
    commands = _table(
        f"{server}: the commands of one request, credits free",
        "submit and grant, settle and offer; the command's own time in microseconds",
        "command", "number", "time",
    )  # fmt: skip
    names = {name for cost in whole for name in cost.commands}
    sums = {
        name: [sum(cost.commands.get(name, (0, 0))[i] for cost in whole) for i in (0, 1)]
        for name in names
    }
    for name, (number, time) in sorted(sums.items(), key=lambda item: -item[1][1]):
        commands.add_row(name, f"{number:.2f}", f"{time:.2f}")
    commands.add_row(
        "all", f"{sum(c.made for c in whole):.2f}", f"{sum(c.in_commands for c in whole):.2f}"
    )
    yield commands


def router_table(server: str, round_: Round, shares: Sequence[tuple[str, float, float]]) -> Table:
    """Where a router process spends its CPU."""
    table = _table(
        f"{server}: the router process, {round_.rate:,.0f} grants/s, "
        f"{round_.router_us:.0f} us a request",
        "microseconds a request",
        "function", "itself", "with what it calls",
    )  # fmt: skip
    inner = [row for row in shares if row[2] < EVERYTHING]
    own = sorted(inner, key=lambda row: -row[1])[:TOP]
    outer = [row for row in inner if row not in own][:TOP]
    for name, itself, within in sorted([*own, *outer], key=lambda row: -row[2]):
        table.add_row(
            name[:60], f"{itself * round_.router_us:.1f}", f"{within * round_.router_us:.1f}"
        )
    return table
