"""The queue bench: its arithmetic, its command line, and one short run on a real server."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

import pytest

from fairness.store.contract import ClientState, QueueSettings
from fairness.store.locate import LocatedQueue
from loadtests.bench_queue import __main__ as bench_queue
from loadtests.bench_queue import report, servers
from loadtests.bench_queue.__main__ import Bench, Plan
from loadtests.bench_queue.measures import (
    Figure,
    Round,
    ServerResult,
    cost_ratio,
    figure,
    of,
    percentile,
    summary,
)
from loadtests.bench_queue.population import FAR_ABOVE_V, add_idle_clients, idle_name
from loadtests.bench_queue.profile import cost_of, shares


def measured(rate: float, server_us: float, p99_ms: float = 3.0) -> Round:
    return Round(int(rate), rate, server_us, 60.0, 20.0, 1.0, p99_ms, p99_ms + 1)


RESULT = ServerResult(
    server="valkey 9",
    closed={1: [measured(9_000, 50), measured(12_000, 40)], 2: [measured(15_000, 40)]},
    offered={
        1_000: [measured(5_000, 60), measured(5_000, 90), measured(4_000, 70)],
        1_000_000: [measured(5_000, 66), measured(5_000, 81), measured(5_000, 84)],
    },
    backlog=[measured(6_000, 55)] * 3,
    bytes_per_idle_client=148.4,
)


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([], 0.99) == 0
    assert percentile([3, 1, 2], 0.5) == 2
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile([7], 0.99) == 7


def test_a_figure_shows_its_spread() -> None:
    assert figure([3.0, 1.0, 2.0]) == Figure(2.0, 1.0, 3.0)
    assert figure([12_000, 9_000, 10_000]).show() == "10,000 (9,000-12,000)"
    assert of(RESULT.closed[1], "rate") == Figure(10_500, 9_000, 12_000)


def test_ratios_are_taken_within_rounds() -> None:
    ratio = cost_ratio(RESULT.offered[1_000_000], RESULT.offered[1_000])
    assert ratio == Figure(pytest.approx(1.1), pytest.approx(0.9), pytest.approx(1.2))


def test_the_first_server_gives_the_plain_numbers() -> None:
    other = ServerResult("redis 7", {1: [measured(1, 1)]}, {1: [measured(1, 1)]}, [], None)
    numbers = json.loads(json.dumps(summary([RESULT, other])))
    assert numbers["grants_per_s"] == 10_500
    assert numbers["p50_ms_at_5k"] == 1.0
    assert numbers["p99_ms_at_5k"] == 3.0
    assert numbers["server_us_per_request"] == 70
    assert numbers["server_us_ratio_1m_vs_1k"] == 1.1
    assert numbers["bytes_per_idle_client"] == 148
    assert set(numbers["servers"]) == {"valkey 9", "redis 7"}


def test_every_pool_and_number_of_processes_has_its_row() -> None:
    closed, offered, latency = report.tables([RESULT])
    assert (closed.row_count, offered.row_count, latency.row_count) == (2, 3, 2)


def test_the_command_line_is_checked() -> None:
    assert bench_queue._numbers("8, 1,2") == [1, 2, 8]
    assert bench_queue._servers("redis") == ["redis"]
    for wrong in ("", "0", "1,x", "-1"):
        with pytest.raises(argparse.ArgumentTypeError, match="whole numbers"):
            bench_queue._numbers(wrong)
    with pytest.raises(argparse.ArgumentTypeError, match="choose from valkey, redis"):
        bench_queue._servers("valkey,memcached")


def test_quick_is_a_smaller_plan_of_what_was_asked() -> None:
    plan = Plan(servers=["redis", "valkey"], processes=[4], clients=[1_000]).quick()
    assert (plan.servers, plan.processes, plan.clients) == (["redis"], [4], [1_000])
    assert Plan().quick().clients == [1_000, 100_000]


def test_costs_are_spread_over_the_verbs() -> None:
    stats = {
        "cmdstat_evalsha": {"calls": 10, "usec": 4_000},
        "cmdstat_zadd": {"calls": 600, "usec": 300},
        "cmdstat_info": {"calls": 1, "usec": 50},
    }
    cost = cost_of("submit", 200, 0.006, stats)
    assert cost.cpu == pytest.approx(30)
    assert cost.script == 20
    assert cost.commands == {"zadd": (3.0, 1.5)}
    assert (cost.made, cost.in_commands) == (3.0, 1.5)


def test_stacks_become_shares() -> None:
    rows = shares("main (a.py:1);send (b.py:7) 3\nmain (a.py:2);main (a.py:2) 1\n")
    assert rows == [("main (a.py", 0.25, 1.0), ("send (b.py", 0.75, 0.75)]


@pytest.mark.integration
def test_idle_clients_are_written_as_the_store_reads_them() -> None:
    with servers.running("valkey") as server:
        add_idle_clients(server.redis, "pool", 3)

        async def read() -> list[ClientState]:
            queue = await LocatedQueue.open(server.url, "pool", QueueSettings())
            try:
                return await queue.clients()
            finally:
                await queue.aclose()

        states = asyncio.run(read())
    assert [state.client for state in states] == [idle_name(n) for n in range(3)]
    assert [state.counter for state in states] == [FAR_ABOVE_V + 1.37 * n for n in range(3)]
    assert states[2].output_tokens == 5_004
    assert states[2].service == states[2].input_tokens + 2 * states[2].output_tokens
    assert {state.waiting + state.running for state in states} == {0}


@pytest.mark.integration
def test_a_short_run_grants_and_settles_on_a_real_server(tmp_path: Path) -> None:
    plan = Plan(clients=[100], rate=200, backlogged=50, rounds=1, seconds=0.5, warm_s=0.2)
    with servers.running("valkey") as server:
        bench = Bench(plan, server, tmp_path)
        try:
            with bench.routers(2) as routers:
                closed = bench.measure(routers, "known-100", clients=100, outstanding=16)
                offered = bench.measure(routers[:1], "known-100", clients=100, rate=200)
            with bench.routers(1) as (router,):
                _, (backlog,) = bench.offered(router)
        finally:
            bench.close()
    for round_ in (closed, offered, backlog):
        assert round_.requests > 0
        assert round_.server_us > 0
        assert 0 < round_.p50_ms <= round_.p99_ms <= round_.late_p99_ms
        assert round_.refused == 0
    assert offered.rate < 1_000  # open loop: the rate is the offered one, not what it could do
