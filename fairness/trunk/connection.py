"""Both ends of a trunk: frames gathered into few writes, streams found by their number, heartbeats.

An engine step makes a token for every stream at once. The frames of one iteration of the event
loop leave in one write and come in one read, so a token costs its frame, not a system call at each
end and a chunk of HTTP.
"""

from __future__ import annotations

import asyncio
from typing import cast

from fairness.trunk.frames import FrameError, FrameReader, Kind, header
from fairness.trunk.stream import Stream
from fairness.trunk.window import more_room

BEAT_S = 10.0
SILENT_BEATS = 4  # a peer that has been silent for so many is gone


class Trunk(asyncio.Protocol):
    """What both ends have in common; `on_frame` is told the frames that are one end's alone.

    Whatever goes wrong ends the connection, and with it every stream.
    """

    def __init__(self) -> None:
        self.streams: dict[int, Stream] = {}
        self.congested = False
        self._frames = FrameReader()
        self._out: list[bytes] = []
        self._heard = True
        self._silent = 0
        self._loop = asyncio.get_running_loop()

    def on_frame(self, kind: int, number: int, payload: bytes) -> None:
        """A frame that only this end takes. Raises FrameError for one that it does not."""
        raise NotImplementedError

    def on_stream_end(self, stream: Stream) -> None:
        """The other end's body of this stream is complete."""
        stream.on_end()

    def on_lost(self) -> None:
        """The connection is gone."""

    def send(self, kind: Kind, stream: int, payload: bytes = b"") -> None:
        """Have a frame sent, together with others."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(header(kind, stream, len(payload)))
        self._out.append(payload)

    def forget(self, stream: Stream) -> None:
        """No frame of it matters any more."""
        self.streams.pop(stream.number, None)

    def fail(self, why: str) -> None:
        """End the connection at once."""
        self._break_streams(why)
        self._transport.abort()

    def leave(self) -> None:
        """End the connection when what was written has been sent."""
        self._flush()
        self._transport.close()

    def beat(self) -> None:
        """Every BEAT_S: say that we live, see whether the other end does."""
        self._silent = 0 if self._heard else self._silent + 1
        self._heard = False
        if self._silent >= SILENT_BEATS:
            self.fail("the other end of the connection is silent")
            return
        self.send(Kind.BEAT, 0)
        self._timer = self._loop.call_later(BEAT_S, self.beat)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: connected."""
        self._transport = cast(asyncio.Transport, transport)
        self._timer = self._loop.call_later(BEAT_S, self.beat)

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes."""
        self._heard = True
        try:
            for kind, number, payload in self._frames.feed(data):
                self._take(kind, number, payload)
                if self._transport.is_closing():
                    return
        except FrameError as error:
            self.on_nonsense(error)

    def on_nonsense(self, error: FrameError) -> None:
        """The other end does not speak this protocol, or wrongly."""
        self.fail(f"the other end of the connection has sent nonsense: {error}")

    def pause_writing(self) -> None:
        """asyncio: the other end does not read fast enough."""
        self.congested = True

    def resume_writing(self) -> None:
        """asyncio: it does again."""
        self.congested = False
        for stream in list(self.streams.values()):
            stream.on_free()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: over."""
        self._timer.cancel()
        self._break_streams(f"the connection is lost: {exc or 'closed by the other end'}")
        self.on_lost()

    def _take(self, kind: int, number: int, payload: bytes) -> None:
        if kind in (Kind.DATA, Kind.END, Kind.WINDOW, Kind.RESET):
            stream = self.streams.get(number)
            if stream is None:
                return  # over here; the other end has not heard of it yet
            if kind == Kind.DATA:
                stream.on_data(payload)
            elif kind == Kind.END:
                self.on_stream_end(stream)
            elif kind == Kind.WINDOW:
                stream.on_room(more_room(payload))
            else:
                self.forget(stream)
                stream.on_broken(payload.decode(errors="replace"))
        elif kind != Kind.BEAT:
            self.on_frame(kind, number, payload)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if out and not self._transport.is_closing():
            self._transport.write(b"".join(out))

    def _break_streams(self, why: str) -> None:
        streams, self.streams = self.streams, {}
        for stream in streams.values():
            stream.on_broken(why)
