"""A stream under its windows, its trunk played by a list of the frames it was given."""

from __future__ import annotations

import asyncio
import struct

import pytest

from fairness.trunk.frames import MAX_PAYLOAD, FrameError, Kind
from fairness.trunk.stream import Stream, StreamBrokenError

WINDOW = 1000


class Wire:
    """Remembers what a stream sends."""

    def __init__(self) -> None:
        self.sent: list[tuple[Kind, bytes]] = []
        self.congested = False
        self.forgotten = 0

    def send(self, kind: Kind, stream: int, payload: bytes = b"") -> None:
        assert stream == 7
        self.sent.append((kind, payload))

    def forget(self, stream: Stream) -> None:
        self.forgotten += 1

    @property
    def bytes_sent(self) -> int:
        return sum(len(payload) for kind, payload in self.sent if kind == Kind.DATA)


@pytest.fixture
def wire() -> Wire:
    return Wire()


def stream_on(wire: Wire, window: int = WINDOW) -> Stream:
    return Stream(wire, 7, reads=window, writes=window)


async def turns(number: int = 5) -> None:
    """Let other tasks run until they wait."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_writer_stops_at_the_window_and_goes_on_with_it(wire: Wire) -> None:
    stream = stream_on(wire)
    writing = asyncio.create_task(stream.write(b"x" * 2500))
    await turns()
    assert wire.bytes_sent == 1000
    stream.on_room(700)
    await turns()
    assert wire.bytes_sent == 1700
    stream.on_room(900)
    await writing
    assert wire.bytes_sent == 2500


async def test_a_writer_waits_while_the_connection_takes_nothing(wire: Wire) -> None:
    stream = stream_on(wire)
    wire.congested = True
    writing = asyncio.create_task(stream.write(b"x"))
    await turns()
    assert not wire.sent
    wire.congested = False
    stream.on_free()
    await writing
    assert wire.bytes_sent == 1


async def test_a_large_body_is_split_into_frames(wire: Wire) -> None:
    stream = stream_on(wire, window=3 * MAX_PAYLOAD)
    await stream.write(b"x" * (2 * MAX_PAYLOAD + 1))
    assert [len(payload) for _, payload in wire.sent] == [MAX_PAYLOAD, MAX_PAYLOAD, 1]


async def test_room_is_given_back_for_what_was_passed_on_only(wire: Wire) -> None:
    stream = stream_on(wire)
    stream.on_data(b"x" * 600)
    assert len(await stream.read()) == 600
    assert not wire.sent  # read, not passed on yet
    stream.on_data(b"y")
    await stream.read()
    assert wire.sent == [(Kind.WINDOW, struct.pack("!I", 600))]


async def test_small_amounts_are_given_back_together(wire: Wire) -> None:
    stream = stream_on(wire)
    for _ in range(2 * WINDOW):
        stream.on_data(b"x")
        await stream.read()
    given = [struct.unpack("!I", payload)[0] for _, payload in wire.sent]
    assert given == [500, 500, 500]


async def test_bytes_beyond_the_window_and_after_the_end_are_refused(wire: Wire) -> None:
    stream = stream_on(wire)
    stream.on_data(b"x" * WINDOW)
    with pytest.raises(FrameError):
        stream.on_data(b"x")
    stream = stream_on(wire)
    stream.on_end()
    with pytest.raises(FrameError):
        stream.on_data(b"x")


async def test_what_has_come_is_read_before_the_break_is_told(wire: Wire) -> None:
    stream = stream_on(wire)
    stream.on_data(b"one")
    stream.on_broken("gone")
    assert await stream.read() == b"one"
    with pytest.raises(StreamBrokenError, match="gone"):
        await stream.read()
    with pytest.raises(StreamBrokenError, match="gone"):
        await stream.write(b"x")


async def test_all_that_wait_hear_of_a_break(wire: Wire) -> None:
    stream = stream_on(wire)
    await stream.write(b"x" * WINDOW)
    waiting = [
        asyncio.create_task(work)
        for work in (stream.read(), stream.write(b"x"), stream.over())
    ]  # fmt: skip
    await turns()
    stream.on_broken("gone")
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(result) for result in results] == [
        StreamBrokenError,
        StreamBrokenError,
        type(None),
    ]


async def test_a_complete_answer_outlives_the_connection(wire: Wire) -> None:
    stream = stream_on(wire)
    stream.on_data(b"all")
    stream.on_end()
    stream.on_over()
    stream.on_broken("the connection is lost")
    assert await stream.read() == b"all"
    assert stream.complete
    assert await stream.read() == b""


async def test_the_rest_of_a_request_that_is_answered_is_dropped(wire: Wire) -> None:
    stream = stream_on(wire)
    writing = asyncio.create_task(stream.write(b"x" * 5000))
    await turns()
    stream.on_over()
    await writing
    assert wire.bytes_sent == WINDOW


async def test_leaving_is_told_once_and_not_after_the_end(wire: Wire) -> None:
    stream = stream_on(wire)
    stream.close("enough")
    stream.close("enough")
    assert wire.sent == [(Kind.RESET, b"enough")]
    over = stream_on(Wire())
    over.on_end()
    over.on_over()
    over.close()
    assert wire.sent == [(Kind.RESET, b"enough")]


async def test_an_answer_has_one_head(wire: Wire) -> None:
    stream = stream_on(wire)
    stream.on_head(b"[200, []]")
    with pytest.raises(FrameError):
        stream.on_head(b"[200, []]")
    headless = stream_on(wire)
    headless.on_end()
    with pytest.raises(StreamBrokenError):
        await headless.read_head()
