"""What travels on a trunk: bytes in, frames out, no I/O.

A frame is a header (kind, stream, length of the payload; 13 bytes) and its payload. Streams are
numbered by the router, upwards from 1; 0 is the trunk itself.

| kind | from | payload |
| --- | --- | --- |
| HELLO | router, before anything else | a token that only routers can make |
| OPEN | router | a request's head: JSON [path, [[name, value], ...]] |
| HEAD | replica | an answer's head: JSON [status, [[name, value], ...]] |
| DATA | both | a piece of a body |
| END | both | none: the body is complete |
| WINDOW | both | 4 bytes: room for so many more bytes of the stream's body |
| RESET | both | why the stream ends here and now, in words |
| BEAT | both, now and then | none: the sender lives |
| BYE | replica | why it closes the trunk, in words |
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from typing import Any

import orjson

HEADER = struct.Struct("!BQI")
MAX_PAYLOAD = 64 * 2**10

Frame = tuple[int, int, bytes]
"""(kind, stream, payload)"""


class Kind(enum.IntEnum):
    """See the module's text. None is a letter: what speaks HTTP here is no frame."""

    HELLO = 1
    OPEN = 2
    HEAD = 3
    DATA = 4
    END = 5
    WINDOW = 6
    RESET = 7
    BEAT = 8
    BYE = 9


_KINDS = frozenset(map(int, Kind))


class FrameError(Exception):
    """The peer has sent what is no frame, or a frame that makes no sense."""


def header(kind: int, stream: int, length: int) -> bytes:
    """What stands before a payload of `length` bytes."""
    return HEADER.pack(kind, stream, length)


class FrameReader:
    """Cuts what arrives into frames. Holds less than one frame."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete now. Raises FrameError; nothing may be fed after that."""
        if self._rest:
            data = self._rest + data
        at, end = 0, len(data)
        while end - at >= HEADER.size:
            kind, stream, length = HEADER.unpack_from(data, at)
            if kind not in _KINDS:
                raise FrameError(f"{kind} is no kind of frame")
            if length > MAX_PAYLOAD:
                raise FrameError(f"a frame of {length} bytes; {MAX_PAYLOAD} are allowed")
            start = at + HEADER.size
            if end - start < length:
                break
            at = start + length
            yield kind, stream, data[start:at]
        self._rest = data[at:]


def write_head(first: str | int, headers: list[tuple[str, str]]) -> bytes:
    """The payload of OPEN (first: the path) and HEAD (first: the status). Raises FrameError when
    it is too large for a frame."""
    payload = orjson.dumps([first, headers])
    if len(payload) > MAX_PAYLOAD:
        raise FrameError(f"headers of {len(payload)} bytes; {MAX_PAYLOAD} are allowed")
    return payload


def read_head(payload: bytes, first: type) -> tuple[Any, list[tuple[str, str]]]:
    """What `write_head` was given. Raises FrameError when it was not."""
    try:
        value, headers = orjson.loads(payload)
        pairs = [(str(name), str(text)) for name, text in headers]
    except (TypeError, ValueError) as error:
        raise FrameError(f"an unreadable head: {error}") from error
    if not isinstance(value, first):
        raise FrameError(f"a head with {value!r}")
    return value, pairs
