"""What becomes of open streams when routers are changed and when they leave: real routers behind
the real HAProxy and on a real store. The replica is played; it answers for as long as it is told.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from fairness.cost import ServiceCost
from fairness.store.connection import connect
from fairness.store.contract import Call, QueueSettings, Sender, Usage
from fairness.store.redis_store import RedisQueue
from tests.e2e.conftest import ROOT, free_port
from tests.e2e.routers_serving import FIRST
from tests.integration.trunk_replica import KEY, Request, TrunkReplica

pytestmark = [pytest.mark.e2e, pytest.mark.own_application]

POOL = "tiny"
WAIT_S = 120.0
DRAIN_S = 10.0
STREAMS = 8  # over two routers
LOOKS = 16
SECOND = "sk-second"


class Replica(TrunkReplica):
    """Takes what comes, streams until `finish` and settles."""

    def __init__(self, store: str) -> None:
        super().__init__("replica-1", self._stream)
        self.finish = asyncio.Event()
        self._sender = Sender("replica", self.name)
        self._queue = RedisQueue(connect(store), POOL, QueueSettings(ServiceCost()))
        self._version = 0

    async def live(self) -> None:
        while True:
            self._version += 1
            arrived = len(self.leases.tokens)
            call = Call()
            call.offer(self.url, arrived + STREAMS, arrived, self._version, 4096)
            await self._queue.execute(self._sender, call)
            await asyncio.sleep(0.5)

    async def running(self) -> int:
        """Leases, as the store has them."""
        return sum(client.running for client in await self._queue.clients())

    async def _stream(self, request: Request) -> None:
        gone = asyncio.create_task(request.left())
        await request.start()
        while not self.finish.is_set() and not gone.done():
            await request.write(b"data: {}\n\n")
            await asyncio.sleep(0.05)
        if not gone.done():
            await request.write(b"data: [DONE]\n\n", more=False)
        gone.cancel()
        assert request.lease is not None
        call = Call()
        call.settle(request.lease.name, Usage(1, 0, 1))
        await self._queue.execute(self._sender, call)


@dataclass
class Routers:
    """The routers behind `url`, and who deploys them."""

    url: str
    store: str
    process: subprocess.Popen[str]

    def deploy(self, **changes: Any) -> None:
        """Change the deployment of the routers; returns before that is done."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([{"name": "Router", **changes}]) + "\n")
        self.process.stdin.flush()

    async def names(self) -> set[str]:
        async with httpx.AsyncClient(base_url=self.url, timeout=30) as http:
            asked = [http.get("/healthz") for _ in range(LOOKS)]
            return {answer.json()["router"] for answer in await asyncio.gather(*asked)}

    async def open_to(self, key: str) -> set[bool]:
        """What routers say to a key."""
        async with httpx.AsyncClient(base_url=self.url, timeout=30, headers=bearer(key)) as http:
            asked = [http.get("/v1/models") for _ in range(LOOKS)]
            return {answer.status_code == 200 for answer in await asyncio.gather(*asked)}


@dataclass
class Seen:
    """What clients saw. ends: last lines of streams that ended, or the error that tore them;
    events: so far, of each stream."""

    ends: list[str] = field(default_factory=list)
    cut_off: int = 0
    events: list[int] = field(default_factory=lambda: [0] * STREAMS)

    async def stream(self, http: httpx.AsyncClient, number: int) -> None:
        body = {"model": POOL, "prompt": "long", "stream": True}
        last = ""
        try:
            async with http.stream(
                "POST", "/v1/completions", json=body, headers=bearer(FIRST)
            ) as answer:
                async for line in answer.aiter_lines():
                    self.events[number] += 1
                    last = line or last
                    self.cut_off += '"code":"server_ended"' in line
        except httpx.HTTPError as error:
            last = repr(error)
        self.ends.append(last)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await condition():
            await asyncio.sleep(0.2)


@asynccontextmanager
async def replica(store: str) -> AsyncIterator[Replica]:
    made = Replica(store)
    await made.start()
    living = asyncio.create_task(made.live())
    try:
        yield made
    finally:
        living.cancel()
        await made.stop()


@pytest.fixture(scope="module")
def routers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routers]:
    folder: Path = tmp_path_factory.mktemp("leaving")
    (folder / "live.yaml").write_text("")
    port = free_port()
    environment = os.environ | {
        "DATA": str(folder),
        "POOL": POOL,
        "DRAIN_S": str(DRAIN_S),
        "FAIRLANE_GRANT_KEY": KEY.decode(),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.routers_serving", str(port)],
        cwd=ROOT,
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=(folder / "serve.log").open("w"),
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("redis://"):
                break
        else:
            pytest.fail((folder / "serve.log").read_text()[-4000:])
        yield Routers(f"http://127.0.0.1:{port}", line.strip(), process)
    finally:
        process.stdin.close()
        process.wait(90)


async def test_open_streams_outlast_changes_and_are_told_of_an_end(routers: Routers) -> None:
    seen = Seen()
    async with (
        replica(routers.store) as played,
        httpx.AsyncClient(
            base_url=routers.url, timeout=WAIT_S, limits=httpx.Limits(max_connections=None)
        ) as http,
        asyncio.TaskGroup() as tasks,
    ):

        async def ready() -> bool:
            states = [(await http.get("/readyz")).status_code for _ in range(LOOKS)]
            return len(await routers.names()) == 2 and set(states) == {200}

        async def all_go_on() -> None:
            had = list(seen.events)
            async with asyncio.timeout(WAIT_S):
                while any(new < old + 20 for new, old in zip(seen.events, had, strict=True)):
                    await asyncio.sleep(0.1)

        await until(ready)
        names = await routers.names()
        for number in range(STREAMS):
            tasks.create_task(seen.stream(http, number))
        await all_go_on()

        # What is in `user_config` is taken up by the routers that there are. Nobody is cut off,
        # not even whose key is gone.
        routers.deploy(user_config={"clients": [{"name": "alice", "keys": [SECOND]}]})

        async def changed() -> bool:
            opens = await routers.open_to(SECOND), await routers.open_to(FIRST)
            return opens == ({True}, {False})

        await until(changed)
        await all_go_on()
        assert await routers.names() <= names  # HAProxy prefers the one with fewer streams
        assert seen.ends == []

        # One router leaves: its streams have a while, and are then told. Nothing is torn.
        routers.deploy(
            user_config={"clients": [{"name": "alice", "keys": [SECOND]}]}, num_replicas=1
        )
        async with asyncio.timeout(WAIT_S):
            while not seen.ends:
                await asyncio.sleep(0.1)

        async def settled() -> bool:
            return await played.running() == STREAMS - seen.cut_off

        await until(settled)
        assert 0 < len(seen.ends) == seen.cut_off < STREAMS
        played.finish.set()
        async with asyncio.timeout(WAIT_S):
            while len(seen.ends) < STREAMS:
                await asyncio.sleep(0.1)
        assert set(seen.ends) == {"data: [DONE]"}  # none was torn
