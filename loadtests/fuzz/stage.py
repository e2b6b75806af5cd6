"""A whole router in this process, on a Valkey of its own and with a played replica.

The router is the product's, on the HTTP server that Ray Serve runs it with. The replica answers at
once, and checks what reaches it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import uvicorn

from deployments.embedded_store import EmbeddedValkey
from fairness.grant_token import HEADER, GrantToken
from fairness.store import stand_in
from fairness.store.contract import Call, QueueSettings, Sender, Usage
from fairness.store.locate import LocatedQueue
from fairness.store.settings import StoreSettings
from loadtests.fuzz.bodies import TEXT
from loadtests.fuzz.check import Address
from replicas.grant_check import GrantCheck, Receive, Scope, Send
from replicas.lease_book import Lease
from replicas.trunk_server import TrunkServer
from router.admin.app import admin_api
from router.admin.guard import AdminKeys
from router.admin.port import QuietServer
from router.app import Limits, RouterApp
from router.bodies import RESERVED_FIELDS
from router.clients import Client, Clients, Configured, hash_key
from router.directory.directory import Directory
from router.limits import QueueLimits
from router.trunks import Trunks
from router.turns import Turns

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
    """The product's port and grant check before an app that takes all that is granted; `problems`
    is what should not have reached it."""

    def __init__(self, queue: LocatedQueue) -> None:
        self.problems: list[str] = []
        self.served = 0
        self._queue = queue
        self._sender = Sender("replica", "played")
        self._lock = asyncio.Lock()
        self._version = 0
        self._settling: set[asyncio.Task[None]] = set()
        door = GrantCheck(
            self._answer,
            key=lambda: GRANT_KEY,
            replica="played",
            leases=self,
            engine_works=lambda: True,
            answer=lambda question: stand_in.Answer(1, 4096, {}),
        )
        self._port = TrunkServer(door, door.admit)
        self._url = ""

    async def start(self) -> None:
        """Listen."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._url = "tcp://{}:{}".format(*listener.getsockname()[:2])
        await self._port.listen(listener)

    async def stop(self) -> None:
        """Listen no more."""
        await self._port.close()

    async def live(self) -> None:
        """Stay known as alive."""
        while True:
            self._version += 1
            call = Call()
            call.offer(self._url, 10**6, self.served, self._version, 4096)
            await self._tell(call)
            await asyncio.sleep(1)

    def open(self, token: GrantToken) -> Lease:
        """A grant comes."""
        self.served += 1
        return Lease(token)

    def close(self, lease: Lease) -> None:
        """Its request is over."""
        call = Call()
        call.settle(lease.name, Usage(1, 0, 1))
        settling = asyncio.create_task(self._tell(call))
        self._settling.add(settling)
        settling.add_done_callback(self._settling.discard)

    async def _tell(self, call: Call) -> None:
        async with self._lock:
            await self._queue.execute(self._sender, call)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Whatever is asked."""
        data, more = b"", True
        while more:
            message = await receive()
            data, more = data + message.get("body", b""), message.get("more_body", False)
        content = json.loads(data)
        self._check({name.decode("latin-1") for name, _ in scope["headers"]}, content)
        answer = json.dumps({"id": "x", "object": "played", "model": "tiny"}).encode()
        stream = content.get("stream") is True
        kind = b"text/event-stream" if stream else b"application/json"
        headers = [(b"content-type", kind)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        events = [b"data: " + answer + b"\n\n"] * 3 + [b"data: [DONE]\n\n"]
        for chunk in events if stream else [answer]:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def _check(self, headers: set[str], content: dict[str, Any]) -> None:
        if strangers := headers - OURS:
            self.problems.append(f"headers of the client reached the replica: {strangers}")
        if reserved := RESERVED_FIELDS.intersection(content):
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

        replica = PlayedReplica(await LocatedQueue.open(source, "tiny", SETTINGS))
        await replica.start()
        stack.push_async_callback(replica.stop)
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
        trunks = Trunks(lambda: GRANT_KEY)
        stack.push_async_callback(trunks.close)
        admin = admin_api(AdminKeys([hash_key(ADMIN_KEY)]), directory, {"tiny": turns})
        limits = Limits(body_timeout_s=BODY_TIMEOUT_S)
        app = RouterApp(
            *("router", Clients(keys, directory), {"tiny": turns}, trunks, lambda: GRANT_KEY),
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
    return len(asyncio.all_tasks())


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the router does not start")
        await asyncio.sleep(0.02)
