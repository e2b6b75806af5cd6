"""One stream of a trunk: an exchange of two bodies, each under a window."""

from __future__ import annotations

import asyncio
from typing import Protocol

from fairness.trunk.frames import MAX_PAYLOAD, FrameError, Kind
from fairness.trunk.window import ReadWindow


class StreamBrokenError(ConnectionError):
    """The other end, or the connection, has given the stream up. The message says why."""


class Carrier(Protocol):
    """The trunk, as a stream sees it."""

    @property
    def congested(self) -> bool:
        """Does the connection take no more for now?"""
        ...

    def send(self, kind: Kind, stream: int, payload: bytes = b"") -> None: ...

    def forget(self, stream: Stream) -> None: ...


class Stream:
    """What a task of ours does with a stream, and below it what the trunk tells it.

    One task may read while one writes. A stream is over when the answer is complete, or in the
    middle, when either end resets it or the connection is lost; then `read` gives what has come and
    raises StreamBrokenError, as `write` does.
    """

    __slots__ = (
        "_broken",
        "_carrier",
        "_chunks",
        "_ended",
        "_handed_out",
        "_head",
        "_over",
        "_reader",
        "_room",
        "_window",
        "_writer",
        "number",
    )

    def __init__(self, carrier: Carrier, number: int, *, reads: int, writes: int) -> None:
        """reads, writes: sizes of the windows in bytes."""
        self.number = number
        self._carrier = carrier
        self._window = ReadWindow(reads)
        self._room = writes
        self._head: bytes | None = None
        self._chunks: list[bytes] = []
        self._handed_out = 0
        self._ended = False
        self._broken: str | None = None
        self._over = asyncio.Event()
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None

    @property
    def complete(self) -> bool:
        """Has the other end's body come and been read to its end?"""
        return self._ended and not self._chunks

    async def read_head(self) -> bytes:
        """The head of the answer. Raises StreamBrokenError."""
        while self._head is None:
            if self._ended:
                raise StreamBrokenError("the answer has no head")
            await self._news()
        return self._head

    async def read(self) -> bytes:
        """What has come since the last call, at least a byte; empty at the end. Raises
        StreamBrokenError.

        What the last call returned now counts as passed on.
        """
        if self._handed_out:
            update = self._window.passed_on(self._handed_out)
            self._handed_out = 0
            if update and not self._ended and self._broken is None:
                self._carrier.send(Kind.WINDOW, self.number, update)
        while not self._chunks and not self._ended:
            await self._news()
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks.clear()
        self._handed_out = len(data)
        return data

    async def write(self, data: bytes) -> None:
        """Send a piece of the body when there is room for it. Raises StreamBrokenError. After a
        complete answer nobody reads the rest of a request: it is dropped."""
        at, end = 0, len(data)
        while at < end:
            while (self._room <= 0 or self._carrier.congested) and not self._over.is_set():
                self._writer = asyncio.get_running_loop().create_future()
                await self._writer
            if self._broken is not None:
                raise StreamBrokenError(self._broken)
            if self._over.is_set():
                return
            size = min(end - at, self._room, MAX_PAYLOAD)
            self._room -= size
            self._carrier.send(Kind.DATA, self.number, data[at : at + size])
            at += size

    def end(self) -> None:
        """Our body is complete."""
        if not self._over.is_set():
            self._carrier.send(Kind.END, self.number)

    def send_head(self, head: bytes) -> None:
        """The answer begins."""
        if not self._over.is_set():
            self._carrier.send(Kind.HEAD, self.number, head)

    def finish(self) -> None:
        """The answer is complete, and the stream over."""
        self.end()
        self.on_over()
        self._carrier.forget(self)

    def close(self, why: str = "left") -> None:
        """Leave it. If it is not over, the other end hears why."""
        if not self._over.is_set():
            self._carrier.send(Kind.RESET, self.number, why.encode()[:MAX_PAYLOAD])
            self.on_broken(why)
        self._chunks.clear()
        self._carrier.forget(self)

    async def over(self) -> None:
        """Returns when the stream is over."""
        await self._over.wait()

    def on_head(self, head: bytes) -> None:
        """The answer begins. Raises FrameError when it had begun."""
        if self._head is not None:
            raise FrameError("a second head")
        self._head = head
        _wake(self._reader)

    def on_data(self, data: bytes) -> None:
        """A piece of the other end's body. Raises FrameError when it may not come."""
        if self._ended:
            raise FrameError("bytes after the end of a body")
        if data:
            self._window.arrived(len(data))
            self._chunks.append(data)
            _wake(self._reader)

    def on_end(self) -> None:
        """The other end's body is complete."""
        self._ended = True
        _wake(self._reader)

    def on_room(self, amount: int) -> None:
        """The other end has passed on so many bytes."""
        self._room += amount
        _wake(self._writer)

    def on_free(self) -> None:
        """The connection takes more."""
        _wake(self._writer)

    def on_over(self) -> None:
        """The answer is complete: there is nothing more to write."""
        self._over.set()
        _wake(self._writer)

    def on_broken(self, why: str) -> None:
        """It is over in the middle, unless it was over before."""
        if not self._over.is_set():
            self._broken = why
            self._over.set()
            _wake(self._reader)
            _wake(self._writer)

    async def _news(self) -> None:
        if self._broken is not None:
            raise StreamBrokenError(self._broken)
        self._reader = asyncio.get_running_loop().create_future()
        await self._reader


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
