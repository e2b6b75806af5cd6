"""Flow control of one body in one direction: no more is under way than the reader has room for.

The writer may send `room` bytes; the reader gives room back when bytes have been passed on. So a
slow reader stops the writer, and one stream's bytes never hold up another's.
"""

from __future__ import annotations

import struct

from fairness.trunk.frames import FrameError

UPLOAD = 256 * 2**10  # of a request's body: an engine reads it at once
DOWNLOAD = 64 * 2**10  # of an answer: some hundred tokens, for each of very many slow readers
_AMOUNT = struct.Struct("!I")


class ReadWindow:
    """The reader's account."""

    __slots__ = ("_room", "_size", "_used")

    def __init__(self, size: int) -> None:
        self._size = size
        self._room = size
        self._used = 0

    def arrived(self, amount: int) -> None:
        """Raises FrameError when the writer has sent more than there was room for."""
        self._room -= amount
        if self._room < 0:
            raise FrameError("more bytes than the window has room for")

    def passed_on(self, amount: int) -> bytes:
        """So many bytes are no longer held: what to tell the writer, empty while it can wait."""
        self._used += amount
        if 2 * self._used < self._size:
            return b""
        used, self._used = self._used, 0
        self._room += used
        return _AMOUNT.pack(used)


def more_room(payload: bytes) -> int:
    """What `passed_on` said. Raises FrameError."""
    if len(payload) != _AMOUNT.size:
        raise FrameError("a window frame of another length")
    amount: int = _AMOUNT.unpack(payload)[0]
    return amount
