"""Our own workloads in the cluster experiment: one table on neighbours, one on all of them."""

from __future__ import annotations

from collections.abc import Sequence

from loadtests.experiments.play import Results, Trial
from loadtests.experiments.systems import title
from loadtests.report.document import Column, Row, Section, Table

NEIGHBOURS = "noisy_neighbour"
WATCHED = {NEIGHBOURS: "polite", "thousand_connections": "polite", "newcomer": "newcomer"}
"""Clients whose wait is the point."""

RIVALS = {"newcomer": ("newcomer", "old1", "old2")}
"""Whose gap it is, where it is not those who are backlogged half of the time."""

WORKLOADS = (
    NEIGHBOURS, "thousand_connections", "newcomer", "zipf_tenants", "weighted", "on_off",
    "long_prompts_and_chats", "aborters", "many_keys", "shared_prefixes", "some_routers",
)  # fmt: skip


def trials(systems: Sequence[str], replicas: int, seed: int, *, every: bool) -> list[Trial]:
    """Return the runs of one seed: the neighbours, alone too; of all workloads if ``every``."""
    plan = [
        Trial(NEIGHBOURS, system, replicas, seed, watch=WATCHED[NEIGHBOURS], alone=True)
        for system in systems
    ]
    for name in WORKLOADS if every else (NEIGHBOURS,):
        plan += [
            Trial(name, system, replicas, seed, RIVALS.get(name, ()), watch=WATCHED.get(name))
            for system in systems
        ]
    return plan


def neighbours(results: Results, systems: Sequence[str], replicas: int) -> Section:
    """Lay out what a flooder does to a client that asks for a tenth of the capacity."""
    rows = []
    for system in systems:
        key = (NEIGHBOURS, system, replicas)
        alone, beside = results.watched(key, 1, alone=True), results.watched(key, 1)
        times = beside.value / alone.value if alone.value and beside.value is not None else None
        cells = (results.watched(key, 0, alone=True), alone, results.watched(key, 0), beside, times)
        rows.append(Row(title(system), cells))
    table = Table(
        "system",
        (
            Column("alone: p50 TTFT", 2, unit="s"),
            Column("alone: p99 TTFT", 2, unit="s"),
            Column("beside: p50 TTFT", 2, best="low", unit="s"),
            Column("beside: p99 TTFT", 2, best="low", unit="s"),
            Column("p99, times alone", 1, best="low"),
        ),
        tuple(rows),
        note="A client that asks for a tenth of the capacity, alone and beside one that asks for "
        "three times all of it. The closer to 1, the better it is isolated; a busy server can't "
        "reach 1, since whoever comes must wait for the next admission.",
    )
    return Section(f"Isolation: a polite client beside a flooder, {replicas} servers", (table,))


def everything(results: Results, systems: Sequence[str], replicas: int) -> Section:
    """Lay out all of our workloads."""
    rows = []
    for name in WORKLOADS:
        for system in systems:
            key = (name, system, replicas)
            rows.append(
                Row(
                    f"{name}: {title(system)}",
                    (
                        results.cell(key, "gap"),
                        results.cell(key, "jain"),
                        results.watched(key, 1),
                        results.cell(key, "throughput", per=replicas),
                    ),
                )
            )
    table = Table(
        "workload and system",
        (
            Column("gap of those that wait", 0, unit="service"),
            Column("Jain index of those", 4),
            Column("watched client's p99 TTFT", 1, unit="s"),
            Column("throughput / R", 0, unit="tokens/s"),
        ),
        tuple(rows),
        note="Gap and index are of the clients that are backlogged for half of the time, by "
        "weight, while all of them wait; of the newcomer and the old ones once it has come. "
        "Watched: " + ", ".join(f"{client} in {name}" for name, client in WATCHED.items()) + ".",
    )
    return Section(f"Hard cases, {replicas} servers", (table,))
