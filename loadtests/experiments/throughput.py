"""What fairness costs in throughput: a section of both experiments' reports."""

from __future__ import annotations

from collections.abc import Mapping

from loadtests.experiments.systems import title
from loadtests.report.document import Column, Row, Section, Table


def throughput_section(ratios: Mapping[tuple[str, str, int], float]) -> Section:
    """Lay out throughput as a part of FCFS's, the worst first."""
    table = Table(
        "workload and system",
        (Column("servers"), Column("of FCFS's throughput", 3)),
        tuple(
            Row(f"{load}: {title(system)}", (replicas, ratio))
            for (load, system, replicas), ratio in sorted(ratios.items(), key=lambda item: item[1])
        ),
        note="Tokens per second with the drain after the last arrival, in which only who asked "
        "for most is left: where requests differ in kind, fair service leaves another mix to it.",
    )
    return Section("What fairness costs in throughput", (table,))
