"""What the global queue costs: real servers, real router processes, the product's own path.

`python -m loadtests.bench_queue` (or `make bench-queue`) measures, on each server:

- **as fast as it goes**: 1, 2, 4 and 8 router processes with 512 requests open between them and
  credits free: grants a second, and CPU a request of router and server;
- **at 5,000 requests a second** (one router process, random arrivals, credits free): the time from
  submit to grant, and the server's CPU for submit, grant and settlement of one request; in pools
  that know 1,000, 100,000 and 1,000,000 clients. The pools stand side by side on one server and
  are measured in turn within each round, so that their ratio is not the machine's mood;
- **with 10,000 backlogged clients** and 128 credits: the server's CPU a request when every grant is
  a choice among them;
- memory of an idle client.

A request is granted to a replica process that settles it at once, in the calls that a replica
makes. All share this machine's cores, which bounds what several router processes can show.

Every figure is the median of short rounds, the smallest and largest behind it. Tables go to
standard output, and as its last line the numbers of the first server as JSON; progress goes to
standard error.

`--profile` instead tells where the time goes: verb by verb in the server, function by function in
the router.

examples:
  python -m loadtests.bench_queue --quick                 a look, under a minute
  python -m loadtests.bench_queue --servers redis         Debian's redis-server only
  python -m loadtests.bench_queue --clients 1000,1000000  the ratio only
  python -m loadtests.bench_queue --profile               before and after a change of the scripts
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from rich.console import Console

from loadtests.bench_queue import profile, report, servers
from loadtests.bench_queue.control import Process
from loadtests.bench_queue.measures import Round, ServerResult, summary
from loadtests.bench_queue.population import add_idle_clients
from loadtests.bench_queue.servers import Server

OUTSTANDING = 512
FREE_CREDITS = 8_192
BUSY_CLIENTS = 1_000
BACKLOGGED = 10_000
BACKLOG_CREDITS = 128
BACKLOG_POOL = "backlog"
WATCH_S = 4

_progress = Console(stderr=True, highlight=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, and for how long."""

    servers: Sequence[str] = servers.NAMES
    processes: Sequence[int] = (1, 2, 4, 8)
    clients: Sequence[int] = (1_000, 100_000, 1_000_000)
    rate: float = 5_000.0
    backlogged: int = BACKLOGGED
    rounds: int = 5
    seconds: float = 1.5
    warm_s: float = 0.5

    def quick(self) -> Plan:
        """The same in less time: fewer rounds, servers and clients."""
        return Plan(
            servers=self.servers[:1],
            processes=[n for n in self.processes if n <= 2] or self.processes[:1],
            clients=[min(self.clients), *([100_000] if 100_000 in self.clients else [])],
            rounds=3,
            seconds=1.0,
            warm_s=0.3,
        )


def _pool(clients: int) -> str:
    return f"known-{clients}"


class Bench:
    """One server with its pools, the replica process, and router processes as needed."""

    def __init__(self, plan: Plan, server: Server, folder: Path) -> None:
        self._plan = plan
        self._server = server
        self._leases = str(folder / f"{server.name}.sock")
        windows = {_pool(count): FREE_CREDITS for count in plan.clients}
        windows[BACKLOG_POOL] = BACKLOG_CREDITS
        config = {"name": "bench-replica", "url": server.url, "leases": self._leases}
        self._replica = Process(
            "loadtests.bench_queue.replica_process", config | {"windows": windows}
        )
        self._replica.receive()

    def close(self) -> None:
        """End the replica process."""
        self._replica.__exit__(None, None, None)

    @contextlib.contextmanager
    def routers(self, count: int) -> Iterator[list[Process]]:
        """So many router processes, up and ready."""
        with contextlib.ExitStack() as stack:
            processes = [
                stack.enter_context(
                    Process(
                        "loadtests.bench_queue.router_process",
                        {
                            "name": f"bench-router-{secrets.token_hex(4)}",  # one life
                            "url": self._server.url,
                            "leases": self._leases,
                        },
                    )
                )
                for number in range(count)
            ]
            for process in processes:
                process.receive()
            yield processes

    def measure(self, routers: Sequence[Process], pool: str, **load: float) -> Round:
        """One round: start a load, let it warm, measure it, end it."""
        _ask_all(routers, do="start", pool=pool, **load)
        time.sleep(self._plan.warm_s)
        _ask_all(routers, do="begin", pool=pool)
        server_s, replica = self._server.cpu_s(), self._replica.ask()
        time.sleep(self._plan.seconds)
        results = _ask_all(routers, do="result", pool=pool)
        server_s = self._server.cpu_s() - server_s
        replica_s = self._replica.ask()["cpu_s"] - replica["cpu_s"]
        _ask_all(routers, do="stop", pool=pool)
        requests = int(sum(result["requests"] for result in results))
        if not requests:
            raise RuntimeError(
                f"nothing was granted in pool {pool} in {self._plan.seconds:g} s: either the queue "
                "is broken, or this machine is far too busy to measure anything"
            )
        return Round(
            requests=requests,
            rate=sum(result["requests"] / result["seconds"] for result in results),
            server_us=1e6 * server_s / requests,
            router_us=1e6 * sum(result["cpu_s"] for result in results) / requests,
            replica_us=1e6 * replica_s / requests,
            p50_ms=1e3 * fmean(result["p50"] for result in results),
            p99_ms=1e3 * max(result["p99"] for result in results),
            late_p99_ms=1e3 * max(result["late_p99"] for result in results),
            refused=int(sum(result["refused"] for result in results)),
        )

    def closed(self, count: int) -> list[Round]:
        """As fast as it goes, with `count` router processes."""
        pool = _pool(min(self._plan.clients))
        with self.routers(count) as routers:
            return [
                self.measure(
                    routers, pool, clients=BUSY_CLIENTS, outstanding=max(1, OUTSTANDING // count)
                )
                for _ in range(self._plan.rounds)
            ]

    def offered(self, router: Process) -> tuple[dict[int, list[Round]], list[Round]]:
        """At the offered rate in each pool in turn, then the backlogged pool; and so on."""
        offered: dict[int, list[Round]] = {count: [] for count in self._plan.clients}
        backlog = []
        for number in range(self._plan.rounds):
            shift = number % len(offered)
            for count in [*list(offered)[shift:], *list(offered)[:shift]]:
                busy = min(BUSY_CLIENTS, count)
                offered[count].append(
                    self.measure([router], _pool(count), clients=busy, rate=self._plan.rate)
                )
            backlogged = self._plan.backlogged
            backlog.append(
                self.measure([router], BACKLOG_POOL, clients=backlogged, outstanding=backlogged)
            )
        return offered, backlog

    def watched(self) -> tuple[Round, list[tuple[str, float, float]]]:
        """One router process as fast as it goes: a round, then shares of its CPU by function."""
        pool = _pool(min(self._plan.clients))
        load = {"clients": BUSY_CLIENTS, "outstanding": OUTSTANDING}
        with self.routers(1) as (router,):
            measured = self.measure([router], pool, **load)
            router.ask(do="start", pool=pool, **load)
            shares = profile.watch(router.pid, WATCH_S)
            if shares is None:
                shares = router.ask(do="watch", pool=pool, seconds=WATCH_S)["shares"]
        return measured, shares


def _ask_all(processes: Sequence[Process], **command: object) -> list[dict[str, float]]:
    for process in processes:
        process.send(**command)
    return [process.receive() for process in processes]


def bench(plan: Plan) -> list[ServerResult]:
    """Measure the servers of the plan, one after the other."""
    results = []
    for name in plan.servers:
        if servers.binary(name) is None and len(plan.servers) > 1:
            _progress.print(f"{name} is not installed here: left out", style="yellow")
            continue
        with tempfile.TemporaryDirectory(prefix="fairlane-bench-") as folder:
            results.append(_bench_server(plan, name, Path(folder)))
    if not results:
        raise RuntimeError(f"none of {', '.join(plan.servers)} is installed")
    return results


def _bench_server(plan: Plan, name: str, folder: Path) -> ServerResult:
    with servers.running(name) as server, contextlib.ExitStack() as stack:
        label = f"{name} {server.version}"
        per_client = None
        for count in sorted(plan.clients):
            idle = max(0, count - BUSY_CLIENTS)
            _progress.print(f"{label}: a pool that knows {count:,} clients", style="dim")
            before = server.memory_bytes()
            add_idle_clients(server.redis, _pool(count), idle)
            if idle:
                per_client = (server.memory_bytes() - before) / idle
        test = Bench(plan, server, folder)
        stack.callback(test.close)
        with test.routers(1) as (router,):
            _progress.print(f"{label}: {plan.rate:,.0f} requests a second, and a backlog")
            offered, backlog = test.offered(router)
        closed = {}
        for processes in plan.processes:
            _progress.print(f"{label}: {processes} router processes, as fast as it goes")
            closed[processes] = test.closed(processes)
        return ServerResult(label, closed, offered, backlog, per_client)


def _profile(plan: Plan, out: Console) -> None:
    """Print where the time goes, server by server."""
    for name in plan.servers:
        with (
            tempfile.TemporaryDirectory(prefix="fairlane-bench-") as folder,
            servers.running(name) as server,
            contextlib.ExitStack() as stack,
        ):
            label = f"{name} {server.version}"
            _progress.print(f"{label}: verb by verb", style="dim")
            for table in report.verb_tables(label, asyncio.run(profile.verb_costs(server))):
                out.print(table)
            _progress.print(f"{label}: the router process", style="dim")
            test = Bench(plan, server, Path(folder))
            stack.callback(test.close)
            out.print(report.router_table(label, *test.watched()))


def _numbers(text: str) -> list[int]:
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1:
        raise argparse.ArgumentTypeError(f"give whole numbers with commas, not {text!r}")
    return numbers


def _servers(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names or set(names) - set(servers.NAMES):
        raise argparse.ArgumentTypeError(f"choose from {', '.join(servers.NAMES)}, not {text!r}")
    return names


def _parser() -> argparse.ArgumentParser:
    plan = Plan()
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench_queue",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds, servers and clients: under a minute"
    )
    parser.add_argument(
        "--servers", type=_servers, default=plan.servers, metavar="NAMES", help="valkey,redis"
    )
    parser.add_argument(
        "--processes",
        type=_numbers,
        default=plan.processes,
        metavar="NUMBERS",
        help="router processes (default 1,2,4,8)",
    )
    parser.add_argument(
        "--clients",
        type=_numbers,
        default=plan.clients,
        metavar="NUMBERS",
        help="known clients of the pools (default 1000,100000,1000000); the least and the most "
        "make the ratio",
    )
    parser.add_argument(
        "--profile", action="store_true", help="tell where the time goes instead (half a minute)"
    )
    return parser


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; return the exit status."""
    options = _parser().parse_args(arguments)
    plan = Plan(options.servers, options.processes, options.clients)
    if options.quick:
        plan = plan.quick()
    # Started in the background of a script, SIGINT is ignored, here and in what is started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    # In a pipe there is no width to heed.
    out = Console() if sys.stdout.isatty() else Console(width=120)
    try:
        if options.profile:
            _profile(plan, out)
            return 0
        results = bench(plan)
    except KeyboardInterrupt:
        _progress.print("interrupted; everything started has been stopped")
        return 130
    except RuntimeError as error:
        _progress.print(f"bench_queue: {error}", style="red")
        return 1
    for table in report.tables(results):
        out.print(table)
    print(json.dumps(summary(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
