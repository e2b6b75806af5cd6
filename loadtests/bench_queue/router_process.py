"""One router process of the bench: requests through the product's own path, on uvloop.

A request is a task that submits to `router.turns.Turns`, awaits its grant and tells the replica
process of its lease; there is no HTTP before or after. Two loads:

closed  so many tasks, each asks again as soon as it was granted
open    new tasks at random (Poisson) moments of a given mean rate, whatever became of the others;
        the timer is uvloop's, so those due within one millisecond come together
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from typing import Any

import uvloop

from fairness.store.contract import QueueSettings
from fairness.store.locate import LocatedQueue
from loadtests.bench_queue.control import obey
from loadtests.bench_queue.measures import percentile
from loadtests.bench_queue.profile import watch_myself
from router.clients import Client
from router.errors import ApiError
from router.limits import QueueLimits
from router.turns import Turn, Turns

BODY_BYTES = 800
LOOKS = 20  # half a second each
LIMITS = QueueLimits(requests_per_client=20_000, requests=40_000)


class Load:
    """Requests of one pool's clients, and what they met since `begin`."""

    def __init__(self, turns: Turns, leases: asyncio.StreamWriter, pool: str) -> None:
        self._turns = turns
        self._leases = leases
        self._pool = pool
        self._tasks: set[asyncio.Task[None]] = set()
        self._source: asyncio.Task[None] | None = None
        self._granted: list[str] = []
        self._now = time.perf_counter  # uvloop rounds its own to milliseconds
        self.begin()

    def begin(self) -> None:
        """Count from now on."""
        self._waits: list[float] = []
        self._lates: list[float] = []
        self._refused = 0
        self._began, self._cpu = time.monotonic(), time.process_time()

    def result(self) -> dict[str, Any]:
        """What was counted. Times in seconds."""
        return {
            "requests": len(self._waits),
            "seconds": time.monotonic() - self._began,
            "cpu_s": time.process_time() - self._cpu,
            "p50": percentile(self._waits, 0.5),
            "p99": percentile(self._waits, 0.99),
            "late_p99": percentile(self._lates, 0.99),
            "refused": self._refused,
        }

    def closed(self, clients: list[Client], outstanding: int) -> None:
        """Keep so many requests open; with as many clients, each has one waiting or more."""
        for number in range(outstanding):
            self._spawn(self._again_and_again(clients, number))

    def open(self, clients: list[Client], rate: float) -> None:
        """Begin `rate` requests a second on average."""
        self._source = asyncio.create_task(self._arrivals(clients, rate))

    async def stop(self) -> None:
        """End the load; what waits leaves the queue."""
        tasks = [*self._tasks, *([self._source] if self._source else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._source = None

    def _spawn(self, request: Any) -> None:
        task = asyncio.create_task(request)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _again_and_again(self, clients: list[Client], number: int) -> None:
        # A client of its own first: with as many tasks as clients, all clients are backlogged.
        client = clients[number % len(clients)]
        own = len(clients) > 1000
        while True:
            await self._request(client, self._now())
            if not own:
                client = random.choice(clients)

    async def _arrivals(self, clients: list[Client], rate: float) -> None:
        due = self._now()
        while True:
            due += random.expovariate(rate)
            if due > self._now():
                await asyncio.sleep(due - self._now())
            self._spawn(self._request(random.choice(clients), due))

    async def _request(self, client: Client, due: float) -> None:
        began = self._now()
        try:
            turn: Turn = self._turns.submit(client, BODY_BYTES)
        except ApiError:
            self._refused += 1
            return
        try:
            grant = await turn.grant
            self._turns.answered(turn)  # the replica process answers for it from here
        finally:
            self._turns.leave(turn)
        granted = self._now()
        self._waits.append(granted - began)
        self._lates.append(granted - min(due, began))
        if not self._granted:
            asyncio.get_running_loop().call_soon(self._tell)
        self._granted.append(grant.lease)

    def _tell(self) -> None:
        """The replica learns of the leases that were granted at once, in one line."""
        self._leases.write(f"{self._pool} {' '.join(self._granted)}\n".encode())
        self._granted.clear()


class RouterProcess:
    """The router's `Turns` of every pool, made when first asked for."""

    def __init__(self, config: dict[str, Any], leases: asyncio.StreamWriter) -> None:
        self._config = config
        self._leases = leases
        self._loads: dict[str, Load] = {}
        self._turns: list[Turns] = []
        self._closing = contextlib.AsyncExitStack()

    async def handle(self, command: dict[str, Any]) -> dict[str, Any]:
        """`{"do": start | begin | result | watch | stop, "pool": ..}`."""
        load = await self._load(command["pool"])
        match command["do"]:
            case "start":
                clients = [Client(f"busy-{n:07d}") for n in range(command["clients"])]
                if "rate" in command:
                    load.open(clients, command["rate"])
                else:
                    load.closed(clients, command["outstanding"])
            case "begin":
                load.begin()
            case "result":
                return load.result()
            case "watch":
                return {"shares": await watch_myself(command["seconds"])}
            case "stop":
                await load.stop()
        return {}

    async def _load(self, pool: str) -> Load:
        if pool not in self._loads:
            queue = await LocatedQueue.open(self._config["url"], pool, QueueSettings())
            self._closing.push_async_callback(queue.aclose)
            turns = Turns(self._config["name"], queue, LIMITS, QueueSettings())
            turns.start()
            self._closing.push_async_callback(turns.stop)
            if not any([await turns.look() for _ in range(LOOKS)]):
                raise RuntimeError(f"the replica process offers nothing in pool {pool}")
            self._loads[pool] = Load(turns, self._leases, pool)
        return self._loads[pool]

    async def close(self) -> None:
        """Stop everything."""
        for load in self._loads.values():
            await load.stop()
        await self._closing.aclose()


async def _main() -> None:
    config = json.loads(sys.argv[1])
    _, leases = await asyncio.open_unix_connection(config["leases"])
    process = RouterProcess(config, leases)
    try:
        await obey(process.handle)
    finally:
        await process.close()


if __name__ == "__main__":
    uvloop.run(_main())
