"""The report on real runs of one workload: what each system gave whom, and how far to trust it.

Times are the workload's own seconds, as in the reports on simulated runs, so that the two can lie
side by side; what the clock said stands beside them where it matters.
"""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.measures.backlog import usually_backlogged
from loadtests.measures.delivered import service_curves
from loadtests.measures.latency import small_clients, ttft_percentile
from loadtests.measures.summary import Summary, summarise
from loadtests.outcome import Run
from loadtests.report.document import Column, Figure, Report, Row, Section, Table

MOST_CLIENTS = 40
FEW_CLIENTS = 4
_TOTALS_NOTE = (
    "Seconds are the workload's, but for one column. Small: all clients but the largest three, or, "
    "of four or fewer, but the largest."
)


def report(runs: Sequence[Run]) -> Report:
    """Return the report on one or more runs of one workload.

    Raises ValueError when there is none, or they are of different workloads.
    """
    names = {run.workload.name for run in runs}
    if len(names) != 1:
        raise ValueError(
            f"a report is on one workload, not on {', '.join(sorted(names)) or 'none'}"
        )
    rivals = _rivals(runs)
    summaries = [summarise(run, rivals=rivals) for run in runs]
    sections = [
        Section("In all", (_totals(runs, summaries), _compared(rivals))),
        Section("Received service", _figures(runs)),
        Section("Clients", tuple(_clients(run) for run in runs)),
        Section("How far to trust it", _trust(runs)),
    ]
    return Report(
        title=f"{names.pop()}, played for real",
        lead=_lead(runs),
        sections=sections,
        facts=[
            "service = input + 2 × output tokens; TTFT: time to first token, from when the "
            "request should have left",
            *(_scales(run) for run in runs),
        ],
        numbers={
            run.system: {**summary.as_json(), **(run.numbers or {})}
            for run, summary in zip(runs, summaries, strict=True)
        },
    )


def _rivals(runs: Sequence[Run]) -> tuple[str, ...]:
    """Who waited most of the time in every run: gaps of the same clients can be compared."""
    waited = [set(usually_backlogged(run)) for run in runs]
    return tuple(sorted(set.intersection(*waited)))


def _small(run: Run) -> tuple[str, ...]:
    """All clients but the largest; of few clients, but the largest one."""
    few = len(run.workload.clients) <= FEW_CLIENTS
    return small_clients(run, largest=1) if few else small_clients(run)


def _lead(runs: Sequence[Run]) -> str:
    clients = len(runs[0].workload.clients)
    said = f"{len(runs[0].outcomes):,} requests of {clients:,} clients."
    waits = [(run.system, ttft_percentile(run, 50, _small(run))) for run in runs]
    told = ", ".join(f"{wait:,.1f} s under {system}" for system, wait in waits if wait is not None)
    if told:
        said += f" Those who ask for less waited {told} for their first tokens (median)."
    behind = [run.system for run in runs if _number(run, "fell_behind", 0.0)]
    if behind:
        said += f" The load driver fell behind ({', '.join(behind)}): see the end of this page."
    return said


def _totals(runs: Sequence[Run], summaries: Sequence[Summary]) -> Table:
    columns = (
        Column("small clients' TTFT p50", 1, "low", "s"),
        Column("p99", 1, "low", "s"),
        Column("everyone's TTFT p50", 1, unit="s"),
        Column("average difference", 0, "low", "service/s"),
        Column("largest gap", 0, "low", "service"),
        Column("Jain index", 3, "high"),
        Column("throughput", 0, "high", "tokens/s"),
        Column("of the clock", 0, "high", "tokens/s"),
        Column("done"),
        Column("refused"),
        Column("failed"),
        Column("left"),
    )
    rows = tuple(
        Row(
            run.system,
            (
                ttft_percentile(run, 50, _small(run)),
                ttft_percentile(run, 99, _small(run)),
                s.ttft_p50,
                s.avg_diff,
                s.gap,
                s.jain,
                s.throughput,
                s.throughput / _number(run, "time_scale", 1.0),
                s.done,
                s.refused,
                s.failed,
                s.aborted,
            ),
        )
        for run, s in zip(runs, summaries, strict=True)
    )
    return Table("system", columns, rows, _TOTALS_NOTE)


def _compared(rivals: Sequence[str]) -> str:
    if len(rivals) < 2:
        return (
            "Gap and Jain index compare clients that waited for at least half of the time in every "
            "run; there were not two of them."
        )
    shown = ", ".join(rivals) if len(rivals) <= FEW_CLIENTS else f"{len(rivals)} clients"
    return (
        f"Gap and Jain index compare the service of {shown}, who waited for at least half of the "
        "time in every run, and only while all of them waited."
    )


def _figures(runs: Sequence[Run]) -> tuple[str | Figure, ...]:
    try:
        from loadtests.report.figures import service_over_time, ttft_of_clients
    except ImportError:
        return ("No pictures: matplotlib is not installed (pip install 'fairlane[loadtest]').",)
    return (service_over_time(runs), ttft_of_clients(runs, percentile=50), ttft_of_clients(runs))


def _clients(run: Run) -> Table:
    curves = service_curves(run)
    received = {name: float(curve.at(run.makespan)) for name, curve in curves.items()}
    largest = sorted(received, key=lambda name: (-received[name], name))[:MOST_CLIENTS]
    columns = (
        Column("requests"),
        Column("done"),
        Column("input", unit="tokens"),
        Column("output", unit="tokens"),
        Column("service"),
        Column("TTFT p50", 2, unit="s"),
        Column("TTFT p99", 2, unit="s"),
    )
    rows = []
    for name in largest:
        of = [outcome for outcome in run.outcomes if outcome.request.client == name]
        rows.append(
            Row(
                name,
                (
                    len(of),
                    sum(outcome.ending == "done" for outcome in of),
                    sum(outcome.input_tokens for outcome in of),
                    sum(outcome.output_tokens for outcome in of),
                    received[name],
                    ttft_percentile(run, 50, [name]),
                    ttft_percentile(run, 99, [name]),
                ),
            )
        )
    left_out = len(received) - len(largest)
    note = run.system + (f"; {left_out} smaller clients are left out" if left_out else "")
    return Table("client", columns, tuple(rows), note)


def _trust(runs: Sequence[Run]) -> tuple[str | Table, ...]:
    columns = (
        Column("late p99", 1, "low", "ms"),
        Column("latest", 1, "low", "ms"),
        Column("TTFT p50", 0, unit="ms"),
        Column("between tokens p50", 1, unit="ms"),
        Column("between tokens p99", 1, unit="ms"),
        Column("closed at the end"),
        Column("prompts off by", 2, unit="tokens"),
    )
    in_ms = (
        "late_p99_clock_s",
        "late_p100_clock_s",
        "ttft_p50_clock_s",
        "inter_token_p50_clock_s",
        "inter_token_p99_clock_s",
    )
    rows = tuple(
        Row(
            run.system,
            (
                *(1000 * _number(run, name, 0.0) for name in in_ms),
                _number(run, "cut", 0.0),
                _number(run, "prompt_tokens_off", 0.0),
            ),
        )
        for run in runs
    )
    text = (
        "The loop is open: requests leave at their times, whatever became of earlier ones. Where "
        "one in a hundred left more than 50 ms late the driver's machine was too busy, and times "
        "say as much about it as about the server. Here times are of the clock."
    )
    return (text, Table("system", columns, rows))


def _scales(run: Run) -> str:
    return (
        f"{run.system}: a second of the workload took "
        f"{_number(run, 'time_scale', 1.0):g} s of the clock; all lengths times "
        f"{_number(run, 'token_scale', 1.0):g}; engines: {run.replicas}"
    )


def _number(run: Run, name: str, default: float) -> float:
    return (run.numbers or {}).get(name, default)
