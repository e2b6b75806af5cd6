"""The replica's port: routers connect, say who they are, and send requests to an ASGI app.

Each stream of a trunk (`fairness/trunk`) is one HTTP request to the app, which runs in this process
and is told what a web server would tell it. A stranger learns at the door that this port is not for
it, in HTTP, which is what strangers speak.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from fairness.grant_token import InvalidTokenError
from fairness.trunk.connection import Trunk
from fairness.trunk.frames import FrameError, Kind, read_head, write_head
from fairness.trunk.stream import Stream, StreamBrokenError
from fairness.trunk.window import DOWNLOAD, UPLOAD

logger = logging.getLogger(__name__)

Scope = dict[str, Any]
Message = dict[str, Any]
App = Callable[
    [Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]
Admit = Callable[[str], None]
"""Raises InvalidTokenError for a token that is not a router's."""

MAX_STREAMS = 16_384  # of one router; it holds far fewer grants
STRANGER = "this port is for Fairlane's routers; send requests to them"


class TrunkServer:
    """Listens until `close`."""

    def __init__(self, app: App, admit: Admit) -> None:
        self._app = app
        self.admit = admit
        self._trunks: set[ReplicaTrunk] = set()
        self._exchanges: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def serving(self) -> bool:
        """Does it take connections?"""
        return self._server is not None and self._server.is_serving()

    async def listen(self, listener: socket.socket) -> None:
        """Begin, on a bound socket."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: ReplicaTrunk(self), sock=listener)

    async def close(self) -> None:
        """Cut all connections; the app hears that its clients have left, and ends."""
        if self._server is not None:
            self._server.close()
        for trunk in list(self._trunks):
            trunk.fail("the replica is gone")
        if self._exchanges:
            await asyncio.wait(self._exchanges, timeout=1)

    def connected(self, trunk: ReplicaTrunk) -> None:
        """A connection is there; whose, is to be seen."""
        self._trunks.add(trunk)

    def lost(self, trunk: ReplicaTrunk) -> None:
        """A connection is gone."""
        self._trunks.discard(trunk)

    def begin(self, exchange: Exchange) -> None:
        """Serve a request."""
        task = asyncio.create_task(exchange.run(self._app))
        self._exchanges.add(task)
        task.add_done_callback(self._exchanges.discard)


class ReplicaTrunk(Trunk):
    """A router's connection."""

    def __init__(self, server: TrunkServer) -> None:
        super().__init__()
        self._server = server
        self._admitted = False
        self._last = 0

    def on_frame(self, kind: int, number: int, payload: bytes) -> None:
        """HELLO, then OPEN."""
        if kind == Kind.HELLO:
            try:
                self._server.admit(payload.decode("latin-1"))
            except InvalidTokenError as error:
                self.send(Kind.BYE, 0, str(error).encode())
                self.leave()
            else:
                self._admitted = True
        elif kind == Kind.OPEN and self._admitted:
            self._open(number, payload)
        else:
            raise FrameError(f"frame {kind} is not expected")

    def on_nonsense(self, error: FrameError) -> None:
        """Told to a stranger in a language that it understands."""
        if self._admitted:
            super().on_nonsense(error)
        else:
            self._transport.write(_in_http(STRANGER))
            self._transport.close()

    def beat(self) -> None:
        """Nobody stays for long who does not say who he is."""
        if self._admitted:
            super().beat()
        else:
            self.fail("no router")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: connected."""
        super().connection_made(transport)
        self._server.connected(self)

    def on_lost(self) -> None:
        """The connection is gone."""
        self._server.lost(self)

    def _open(self, number: int, payload: bytes) -> None:
        if number <= self._last:
            raise FrameError(f"stream {number} after stream {self._last}")
        self._last = number
        path, headers = read_head(payload, str)
        if len(self.streams) >= MAX_STREAMS:
            self.send(Kind.RESET, number, b"too many streams at once")
            return
        stream = self.streams[number] = Stream(self, number, reads=UPLOAD, writes=DOWNLOAD)
        self._server.begin(Exchange(stream, self._scope(path, headers)))

    def _scope(self, path: str, headers: list[tuple[str, str]]) -> Scope:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.encode("latin-1"), text.encode("latin-1")) for name, text in headers],
            "client": self._transport.get_extra_info("peername"),
            "server": self._transport.get_extra_info("sockname"),
            "state": {},
        }


class Exchange:
    """One request and its answer, as ASGI puts it."""

    def __init__(self, stream: Stream, scope: Scope) -> None:
        self._stream = stream
        self._scope = scope
        self._read = False
        self._began = False

    async def run(self, app: App) -> None:
        """Have the app answer. What it leaves incomplete is broken off."""
        try:
            await app(self._scope, self._receive, self._send)
        except Exception:  # the edge: the app's fault is logged and told, whatever it is
            logger.exception("the app failed on %s", self._scope["path"])
            if not self._began:
                await self._fail()
        finally:
            self._stream.close("the replica could not complete its answer")

    async def _receive(self) -> Message:
        if not self._read:
            try:
                data = await self._stream.read()
            except StreamBrokenError:
                return {"type": "http.disconnect"}
            self._read = self._stream.complete
            return {"type": "http.request", "body": data, "more_body": not self._read}
        await self._stream.over()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            body = message.get("body", b"")
            if body:
                await self._write(body)
            if not message.get("more_body", False):
                self._stream.finish()
        else:
            self._began = True
            headers = [
                (name.decode("latin-1").lower(), text.decode("latin-1"))
                for name, text in message.get("headers", ())
            ]
            self._stream.send_head(write_head(message["status"], headers))

    async def _write(self, body: bytes) -> None:
        with contextlib.suppress(StreamBrokenError):  # the app hears of it where it listens
            await self._stream.write(body)

    async def _fail(self) -> None:
        start = {
            "type": "http.response.start",
            "status": 500,
            "headers": [(b"content-type", b"text/plain; charset=utf-8")],
        }
        await self._send(start)
        await self._send({"type": "http.response.body", "body": b"Internal Server Error"})


def _in_http(message: str) -> bytes:
    return (
        "HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-type: text/plain\r\n"
        f"content-length: {len(message)}\r\n\r\n{message}"
    ).encode()
