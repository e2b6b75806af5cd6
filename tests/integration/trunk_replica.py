"""A replica whose app is the scenario's: the product's own port and grant check, no engine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fairness.grant_token import GrantToken
from fairness.store import stand_in
from replicas.grant_check import CURRENT_LEASE, GrantCheck
from replicas.lease_book import DuplicateLeaseError, Lease
from replicas.trunk_server import TrunkServer

KEY = b"k" * 32


@dataclass
class Request:
    """What reached the app, and how to answer."""

    path: str
    headers: dict[str, str]
    body: bytes
    lease: Lease | None
    receive: Callable[[], Awaitable[dict[str, Any]]]
    send: Callable[[dict[str, Any]], Awaitable[None]]

    async def start(self, kind: str = "text/event-stream", status: int = 200, **more: str) -> None:
        headers = {"content-type": kind, **more}
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": pairs})

    async def write(self, data: bytes, more: bool = True) -> None:
        await self.send({"type": "http.response.body", "body": data, "more_body": more})

    async def answer(self, data: bytes, status: int = 200, kind: str = "application/json") -> None:
        await self.start(kind, status)
        await self.write(data, more=False)

    async def left(self) -> None:
        """Returns when the client has gone."""
        assert (await self.receive())["type"] == "http.disconnect"


Handler = Callable[[Request], Awaitable[None]]


class Leases:
    """Remembers which grants came, and what is open."""

    def __init__(self) -> None:
        self.tokens: list[GrantToken] = []
        self.open_now: set[str] = set()

    def open(self, token: GrantToken) -> Lease:
        if any(token.lease == known.lease for known in self.tokens):
            raise DuplicateLeaseError("used before")
        self.tokens.append(token)
        self.open_now.add(token.lease)
        return Lease(token)

    def close(self, lease: Lease) -> None:
        self.open_now.discard(lease.name)

    async def all_closed(self) -> None:
        async with asyncio.timeout(10):
            while self.open_now:
                await asyncio.sleep(0.005)


class TrunkReplica:
    """Listens from `start` to `stop`. `url` stays the same if it is started again."""

    def __init__(self, name: str, handler: Handler) -> None:
        self.name = name
        self.handler = handler
        self.leases = Leases()
        self.url = ""
        self._address = ("127.0.0.1", 0)

    async def start(self) -> None:
        listener = socket.create_server(self._address, backlog=1024)
        self._address = listener.getsockname()[:2]
        self.url = "tcp://{}:{}".format(*self._address)
        door = GrantCheck(
            self._app,
            key=lambda: KEY,
            replica=self.name,
            leases=self.leases,
            engine_works=lambda: True,
            answer=lambda question: stand_in.Answer(1, 4096, {}),
        )
        self.port = TrunkServer(door, door.admit)
        await self.port.listen(listener)

    async def stop(self) -> None:
        await self.port.close()

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        pieces, more = [], True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            pieces.append(message["body"])
            more = message["more_body"]
        lease = CURRENT_LEASE.get()
        await self.handler(Request(scope["path"], headers, b"".join(pieces), lease, receive, send))


@asynccontextmanager
async def running(name: str, handler: Handler) -> AsyncIterator[TrunkReplica]:
    """A started replica."""
    replica = TrunkReplica(name, handler)
    await replica.start()
    try:
        yield replica
    finally:
        await replica.stop()
