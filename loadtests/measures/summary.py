"""All numbers of a run at once, as one flat record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass

from loadtests.measures.backlog import usually_backlogged
from loadtests.measures.difference import accumulated_gap, service_difference
from loadtests.measures.gap import gap
from loadtests.measures.latency import small_p99_ttft, ttft_percentile
from loadtests.outcome import Run


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run is judged by.

    max_diff, avg_diff, var_diff: the paper's service difference (service/s). gap: service between
    the backlogged clients, largest over all times; gap_at_ticks: the same at the paper's moments
    only; jain: of their service. None where fewer than two clients are backlogged at one time.
    ttft_*: seconds; small_p99_ttft: of all clients but the three largest. throughput: tokens per
    second, of all replicas together, drain included. makespan: seconds. The rest counts requests.
    """

    system: str
    workload: str
    replicas: int
    seed: int
    max_diff: float
    avg_diff: float
    var_diff: float
    gap: float | None
    gap_at_ticks: float | None
    jain: float | None
    ttft_p50: float | None
    ttft_p99: float | None
    small_p99_ttft: float | None
    throughput: float
    makespan: float
    done: int
    aborted: int
    refused: int
    failed: int

    def as_json(self) -> dict[str, str | float | int | None]:
        """Return it as plain values."""
        return asdict(self)


def throughput(run: Run) -> float:
    """Return input and output tokens per second, from the start to the end of the drain."""
    tokens = sum(outcome.input_tokens + outcome.output_tokens for outcome in run.outcomes)
    return tokens / run.makespan if run.makespan > 0 else 0.0


def summarise(run: Run, *, rivals: Collection[str] | None = None) -> Summary:
    """Return the numbers of a run.

    rivals: whose gap it is; by default those backlogged for at least half of the time.
    """
    difference = service_difference(run)
    names = usually_backlogged(run) if rivals is None else tuple(rivals)
    between = gap(run, names) if len(names) > 1 else None
    at_ticks = accumulated_gap(run, clients=names).maximum if len(names) > 1 else None
    endings = Counter(outcome.ending for outcome in run.outcomes)
    return Summary(
        system=run.system,
        workload=run.workload.name,
        replicas=run.replicas,
        seed=run.seed,
        max_diff=difference.maximum,
        avg_diff=difference.average,
        var_diff=difference.variance,
        gap=between.largest if between else None,
        gap_at_ticks=at_ticks,
        jain=between.jain if between else None,
        ttft_p50=ttft_percentile(run, 50),
        ttft_p99=ttft_percentile(run, 99),
        small_p99_ttft=small_p99_ttft(run),
        throughput=throughput(run),
        makespan=run.makespan,
        done=endings["done"],
        aborted=endings["aborted"],
        refused=endings["refused"],
        failed=endings["failed"],
    )
