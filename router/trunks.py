"""The router's side of trunks: one connection to each replica, made when it is first needed."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from fairness.grant_token import GrantToken
from fairness.trunk.connection import Trunk
from fairness.trunk.frames import FrameError, Kind, read_head, write_head
from fairness.trunk.stream import Stream, StreamBrokenError
from fairness.trunk.window import DOWNLOAD, UPLOAD

CONNECT_TIMEOUT_S = 5.0
HELLO_TTL_S = 15.0

Headers = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A replica's answer, from its head on. Close it, however it ends."""

    status: int
    headers: Headers
    _stream: Stream

    @property
    def complete(self) -> bool:
        """Has all been read?"""
        return self._stream.complete

    async def read(self) -> bytes:
        """The next bytes; empty at the end. Raises StreamBrokenError."""
        return await self._stream.read()

    async def rest(self) -> bytes:
        """All of the body that is left; for small ones. Raises StreamBrokenError."""
        pieces = []
        while not self.complete:
            pieces.append(await self.read())
        return b"".join(pieces)

    def close(self) -> None:
        """Leave; the replica stops if it is not done."""
        self._stream.close()


class Trunks:
    """Connections to replicas, by name and URL. One that is lost is made anew when needed."""

    def __init__(self, grant_key: Callable[[], bytes]) -> None:
        self._key = grant_key
        self._trunks: dict[tuple[str, str], asyncio.Task[RouterTrunk]] = {}

    async def ask(self, replica: str, url: str, path: str, headers: Headers, body: bytes) -> Answer:
        """Send a request and wait until its answer begins. Raises OSError, StreamBrokenError (one
        of them) included, and TimeoutError."""
        trunk = await self._trunk(replica, url)
        stream = trunk.open(path, headers)
        try:
            await stream.write(body)
            stream.end()
            status, answered = read_head(await stream.read_head(), int)
        except FrameError as error:
            stream.close()
            raise StreamBrokenError(str(error)) from error
        except BaseException:  # cancelled, mostly: the replica must not go on alone
            stream.close()
            raise
        return Answer(status, answered, stream)

    async def close(self) -> None:
        """Leave all replicas."""
        trunks, self._trunks = self._trunks, {}
        for connecting in trunks.values():
            connecting.cancel()
            for trunk in await asyncio.gather(connecting, return_exceptions=True):
                if isinstance(trunk, RouterTrunk):
                    trunk.fail("the router is ending")

    async def _trunk(self, replica: str, url: str) -> RouterTrunk:
        key = (replica, url)
        connecting = self._trunks.get(key)
        if connecting is None or not _usable(connecting):
            self._trunks = {k: task for k, task in self._trunks.items() if _usable(task)}
            connecting = self._trunks[key] = asyncio.create_task(self._connect(replica, url))
        if not connecting.done():
            await asyncio.shield(connecting)  # others wait for it, too
        return connecting.result()

    async def _connect(self, replica: str, url: str) -> RouterTrunk:
        host, port = _address(url)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            _, trunk = await loop.create_connection(RouterTrunk, host, port)
        hello = GrantToken("", "", replica, time.time() + HELLO_TTL_S)
        trunk.send(Kind.HELLO, 0, hello.encode(self._key()).encode("latin-1"))
        return trunk


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.hostname is None or parts.port is None:
        raise ConnectionError(f"{url!r} is no address of a replica")
    return parts.hostname, parts.port


def _usable(connecting: asyncio.Task[RouterTrunk]) -> bool:
    if not connecting.done():
        return True
    if connecting.cancelled() or connecting.exception() is not None:
        return False
    return not connecting.result().lost


class RouterTrunk(Trunk):
    """A connection to a replica."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count(1)
        self.lost = False

    def open(self, path: str, headers: Headers) -> Stream:
        """Begin a stream. Raises StreamBrokenError when the connection is lost."""
        if self.lost:
            raise StreamBrokenError("the connection to the replica is lost")
        number, head = next(self._numbers), write_head(path, headers)
        stream = self.streams[number] = Stream(self, number, reads=DOWNLOAD, writes=UPLOAD)
        self.send(Kind.OPEN, number, head)
        return stream

    def on_frame(self, kind: int, number: int, payload: bytes) -> None:
        """HEAD of an answer, BYE."""
        if kind == Kind.HEAD:
            if number in self.streams:
                self.streams[number].on_head(payload)
        elif kind == Kind.BYE:
            self.fail(payload.decode(errors="replace"))
        else:
            raise FrameError(f"frame {kind} is not expected")

    def on_stream_end(self, stream: Stream) -> None:
        """The answer is complete, and the stream with it."""
        stream.on_end()
        stream.on_over()

    def fail(self, why: str) -> None:
        """End the connection at once; it takes no more streams."""
        self.lost = True
        super().fail(why)

    def on_lost(self) -> None:
        """The connection is gone."""
        self.lost = True
