"""One end of a trunk on a played connection."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from fairness.trunk.connection import SILENT_BEATS, Trunk
from fairness.trunk.frames import FrameReader, Kind, header
from fairness.trunk.stream import Stream, StreamBrokenError


class Wire(asyncio.Transport):
    """Remembers what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closing = False

    def write(self, data: object) -> None:
        self.writes.append(cast(bytes, data))

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.closing = True


def connected() -> tuple[Trunk, Wire]:
    trunk, wire = Trunk(), Wire()
    trunk.connection_made(wire)
    return trunk, wire


def stream_on(trunk: Trunk, number: int) -> Stream:
    stream = trunk.streams[number] = Stream(trunk, number, reads=1000, writes=1000)
    return stream


def beat(trunk: Trunk) -> None:
    trunk._timer.cancel()
    trunk.beat()


async def test_what_all_streams_say_at_once_leaves_in_one_write() -> None:
    trunk, wire = connected()
    streams = [stream_on(trunk, number) for number in range(1, 65)]
    await asyncio.gather(*(stream.write(b"token") for stream in streams))
    await asyncio.sleep(0)
    (write,) = wire.writes
    assert list(FrameReader().feed(write)) == [(Kind.DATA, n, b"token") for n in range(1, 65)]
    trunk.connection_lost(None)


async def test_while_the_connection_takes_nothing_no_stream_writes() -> None:
    trunk, wire = connected()
    streams = [stream_on(trunk, number) for number in (1, 2)]
    trunk.pause_writing()
    writing = [asyncio.create_task(stream.write(b"x")) for stream in streams]
    for _ in range(5):
        await asyncio.sleep(0)
    assert not wire.writes
    trunk.resume_writing()
    await asyncio.gather(*writing)
    await asyncio.sleep(0)
    assert len(wire.writes) == 1
    trunk.connection_lost(None)


async def test_a_peer_that_is_heard_is_kept_and_a_silent_one_given_up() -> None:
    trunk, wire = connected()
    stream = stream_on(trunk, 1)
    for _ in range(3 * SILENT_BEATS):
        trunk.data_received(header(Kind.BEAT, 0, 0))
        beat(trunk)
    assert not wire.closing
    for _ in range(SILENT_BEATS + 1):
        beat(trunk)
    assert wire.closing
    with pytest.raises(StreamBrokenError, match="silent"):
        await stream.read()


async def test_a_lost_connection_breaks_every_stream() -> None:
    trunk, _ = connected()
    streams = [stream_on(trunk, number) for number in (1, 2)]
    reading = [asyncio.create_task(stream.read()) for stream in streams]
    await asyncio.sleep(0)
    trunk.connection_lost(OSError("cable"))
    results = await asyncio.gather(*reading, return_exceptions=True)
    assert all(isinstance(r, StreamBrokenError) and "cable" in str(r) for r in results)
    assert not trunk.streams


async def test_late_frames_of_a_stream_that_is_over_are_ignored() -> None:
    trunk, wire = connected()
    stream = stream_on(trunk, 1)
    stream.close()
    for kind, payload in ((Kind.DATA, b"x"), (Kind.END, b""), (Kind.RESET, b"")):
        trunk.data_received(header(kind, 1, len(payload)) + payload)
    assert not wire.closing
    trunk.connection_lost(None)


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", header(Kind.WINDOW, 1, 1) + b"x"])
async def test_nonsense_ends_the_connection(data: bytes) -> None:
    trunk, wire = connected()
    stream_on(trunk, 1)
    trunk.data_received(data)
    assert wire.closing
    trunk.connection_lost(None)
