"""A whole router in this process, on a Valkey of its own and with a played replica.

The router is the product's, on the HTTP server that Ray Serve runs it with. The replica answers at
once, and checks what reaches it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import uvicorn
from aiohttp import web

from deployments.embedded_store import EmbeddedValkey
from fairness.grant_token import HEADER, GrantToken
from fairness.store.contract import Call, QueueSettings, Sender, Usage
from fairness.store.locate import LocatedQueue
from fairness.store.settings import StoreSettings
from loadtests.fuzz.bodies import TEXT
from loadtests.fuzz.check import Address
from router.admin.app import admin_api
from router.admin.guard import AdminKeys
from router.admin.port import QuietServer
from router.app import Limits, RouterApp
from router.bodies import RESERVED_FIELDS
from router.clients import Client, Clients, Configured, hash_key
from router.directory.directory import Directory
from router.relay import open_session
from router.turns import QueueLimits, Turns

KEY = "sk-fuzz-alice-5d41402a"
OTHER_KEY = "sk-fuzz-other-7d793037"
ADMIN_KEY = "sk-fuzz-admin-8f14e45f"
OTHER = "somebody-else"  # a client that no answer may tell another of
GRANT_KEY = b"k" * 32
SETTINGS = QueueSettings(grant_ttl_ms=3000)
BODY_TIMEOUT_S = 3.0
PASSED = frozenset({"host", "accept", "accept-encoding", "content-type", "content-length"})
OURS = PASSED | {HEADER, "x-request-id"}


class Overheard(logging.Handler):
    """Listens to every log: secrets in any line, and faults."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: list[str] = []
        self.lines = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Judge a line."""
        self.lines += 1
        text = self.format(record)
        for secret in (KEY, OTHER_KEY, ADMIN_KEY, TEXT):
            if secret in text:
                self.problems.append(f"{record.name} logged a secret: {text[:300]}")
        if record.levelno >= logging.ERROR:
            self.problems.append(f"{record.name} logged a fault: {text[-1000:]}")


class PlayedReplica:
    """Takes all that is granted; `problems` is what should not have reached it."""

    def __init__(self, source: StoreSettings, queue: LocatedQueue) -> None:
        self.problems: list[str] = []
        self.served = 0
        self.url = ""
        self._queue = queue
        self._sender = Sender("replica", "played")
        self._lock = asyncio.Lock()
        self._version = 0

    async def live(self) -> None:
        """Stay known as alive."""
        while True:
            self._version += 1
            call = Call()
            call.offer(self.url, 10**6, self.served, self._version, 4096)
            await self._tell(call)
            await asyncio.sleep(1)

    async def _tell(self, call: Call) -> None:
        async with self._lock:
            await self._queue.execute(self._sender, call)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Whatever is asked."""
        token = GrantToken.decode(request.headers[HEADER], GRANT_KEY, "played", now=0)
        self.served += 1
        try:
            data = await request.read()
            self._check(request, data)
            answer = {"id": "x", "object": "played", "model": "tiny"}
            if json.loads(data).get("stream") is not True:
                return web.json_response(answer)
            stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await stream.prepare(request)
            for _ in range(3):
                await stream.write(b"data: " + json.dumps(answer).encode() + b"\n\n")
            await stream.write(b"data: [DONE]\n\n")
            return stream
        finally:
            if token.lease:
                call = Call()
                call.settle(token.lease, Usage(1, 0, 1))
                await self._tell(call)

    def _check(self, request: web.Request, data: bytes) -> None:
        strangers = {name.lower() for name in request.headers} - OURS
        if strangers:
            self.problems.append(f"headers of the client reached the replica: {strangers}")
        content = json.loads(data)
        reserved = RESERVED_FIELDS.intersection(content)
        if reserved:
            self.problems.append(f"reserved fields reached the replica: {reserved}")


@dataclass
class Stage:
    """See `stage`. tasks_before: the first case."""

    address: Address
    turns: Turns
    server: uvicorn.Server
    replica: PlayedReplica
    overheard: Overheard
    tasks_before: int

    async def leaks(self, timeout_s: float = 60.0) -> dict[str, int]:
        """What is left of requests once all have ended; waits for it to go."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while True:
            states = await self.turns.clients()
            left = {
                "waiting": sum(state.waiting for state in states),
                "running": sum(state.running for state in states),
                "connections": len(self.server.server_state.connections),
                "tasks": max(0, _task_count() - self.tasks_before),
            }
            if not any(left.values()) or asyncio.get_running_loop().time() > deadline:
                return left
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """Everything running."""
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        valkey = stack.enter_context(EmbeddedValkey(folder))
        overheard = Overheard()
        logging.getLogger().addHandler(overheard)
        stack.callback(logging.getLogger().removeHandler, overheard)
        # With time limits that a busy machine keeps, too.
        source = StoreSettings(valkey.url, connect_timeout_s=10, call_timeout_s=20)

        replica = PlayedReplica(source, await LocatedQueue.open(source, "tiny", SETTINGS))
        played = web.Application(client_max_size=2**30)
        played.router.add_route("*", "/{path:.*}", replica.answer)
        runner = web.AppRunner(played, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        replica.url = "http://{}:{}".format(*runner.addresses[0][:2])
        life = asyncio.create_task(replica.live())
        stack.callback(life.cancel)

        alice, other = Client("alice"), Client(OTHER)
        keys = ((hash_key(KEY), alice), (hash_key(OTHER_KEY), other))
        directory = Directory.open(source, Configured((alice, other), (), keys))
        directory.start()
        stack.push_async_callback(directory.stop)
        turns = Turns(
            "router", await LocatedQueue.open(source, "tiny", SETTINGS), QueueLimits(), SETTINGS
        )
        turns.start()
        stack.push_async_callback(turns.stop)
        session = await stack.enter_async_context(open_session())
        admin = admin_api(AdminKeys([hash_key(ADMIN_KEY)]), directory, {"tiny": turns})
        limits = Limits(body_timeout_s=BODY_TIMEOUT_S)
        app = RouterApp(
            *("router", Clients(keys, directory), {"tiny": turns}, session, lambda: GRANT_KEY),
            *(15.0, limits, admin),
        )
        config = uvicorn.Config(
            app, "127.0.0.1", 0, lifespan="off", access_log=False, log_level=None, log_config=None
        )
        server = QuietServer(config)
        serving = asyncio.create_task(server.serve())
        await _until(lambda: server.started and bool(turns.replicas))
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Stage(Address("127.0.0.1", port), turns, server, replica, overheard, _task_count())
        server.should_exit = True
        await serving


def _task_count() -> int:
    """All but one for each connection that the router keeps to the played replica."""
    return sum("RequestHandler.start" not in repr(task.get_coro()) for task in asyncio.all_tasks())


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the router does not start")
        await asyncio.sleep(0.02)
