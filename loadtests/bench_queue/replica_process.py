"""The replicas' side of the bench: one process that offers credits and settles every lease at
once, by the calls that `replicas.queue_link` makes.

In the product a lease reaches its replica with the request, over HTTP. Here the routers name
their leases over a unix socket, a line for all that were granted in one go, so that this process
costs little of the two or so cores that the routers and the server share with it. Every 10 ms at
most it sends one call a pool: its window of credits, up to 256 settlements, once a second a
heartbeat. There are no charges in between: a request here is over when it is granted.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import uvloop

from fairness.store.contract import Call, QueueSettings, Sender, Usage
from fairness.store.locate import LocatedQueue
from fairness.store.session import Session
from loadtests.bench_queue.control import obey

REPORT_S = 0.01
HEARTBEAT_S = 1.0
CALL_LIMIT = 256
LONGEST = 4096
URL = "http://10.0.0.1:8000"
USAGE = Usage(input=200, output=100)


class Replica:
    """One replica of one pool, which holds at most `window` requests."""

    def __init__(self, queue: LocatedQueue, name: str, window: int) -> None:
        self._session = Session(queue, Sender("replica", name))
        self._window = window
        self._open: list[str] = []  # leases to settle
        self._taken_back: set[str] = set()
        self._arrived = 0
        self._versions = itertools.count(1)
        self.settled = 0

    def arrive(self, leases: list[str]) -> None:
        """These were granted to it."""
        self._open += leases
        self._arrived += len(leases)

    async def run(self) -> None:
        """Offer and settle until cancelled."""
        next_beat = 0.0
        said = -1
        while True:
            leases, self._open = self._open[:CALL_LIMIT], self._open[CALL_LIMIT:]
            limit = self._arrived - len(self._open) + self._window
            beat = time.monotonic() >= next_beat
            if leases or beat or limit != said or self._taken_back:
                call = Call()
                if beat:
                    call.heartbeat()
                    next_beat = time.monotonic() + HEARTBEAT_S
                for lease in leases:
                    call.settle(lease, USAGE)
                call.offer(URL, limit, self._arrived, next(self._versions), LONGEST)
                for lease in self._taken_back:
                    call.settle(lease, Usage())
                reply = await self._session.execute(call)
                self.settled += len(leases)
                said = limit
                # Those that ended with the load before anybody told of them: confirmed, so that
                # their slots return.
                self._arrived += len(set(reply.voided) - self._taken_back)
                self._taken_back = set(reply.voided)
            await asyncio.sleep(REPORT_S)


class LeaseReader(asyncio.Protocol):
    """Lines `POOL LEASE LEASE ..` of one router."""

    def __init__(self, arrive: Callable[[str, list[str]], None]) -> None:
        self._arrive = arrive
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            pool, *leases = line.decode().split(" ")
            self._arrive(pool, leases)


async def _main() -> None:
    config = json.loads(sys.argv[1])
    replicas: dict[str, Replica] = {}
    tasks = []
    for pool, window in config["windows"].items():
        queue = await LocatedQueue.open(config["url"], pool, QueueSettings())
        replicas[pool] = Replica(queue, config["name"], window)
        tasks.append(asyncio.create_task(replicas[pool].run()))

    async def report(_command: dict[str, Any]) -> dict[str, Any]:
        for task in tasks:
            if task.done():
                task.result()
        settled = {pool: replica.settled for pool, replica in replicas.items()}
        return {"cpu_s": time.process_time(), "settled": settled}

    server = await asyncio.get_running_loop().create_unix_server(
        lambda: LeaseReader(lambda pool, leases: replicas[pool].arrive(leases)), config["leases"]
    )
    async with server:
        await obey(report)
    for task in tasks:
        task.cancel()


if __name__ == "__main__":
    uvloop.run(_main())
