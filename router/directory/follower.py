"""What a router may go on believing of what it has looked up, from the log alone. Pure.

Why it is right: everything a router keeps was true at some entry P of the log (its lookup said so).
Let R be the last entry it has read. If P is older than R, an entry between them may have changed
what was looked up, and was read before there was anything to forget: it is not kept. Else all that
changes later comes after R, so it will be read, and is then forgotten. Nothing was missed if R is
still there when the log is read from it on. A store that has failed over may have lost P though it
has R, and grown since; so every such P must be found there, too.
"""

from __future__ import annotations

from collections.abc import Sequence

from router.directory.records import Event

EMPTY = (0, 0)

Position = tuple[int, int]
"""An entry of the log: milliseconds, number."""


def position_of(entry: str) -> Position:
    """Of an id as the store writes it."""
    milliseconds, _, number = entry.partition("-")
    return int(milliseconds), int(number)


class Follower:
    """Where one router is in the log."""

    def __init__(self) -> None:
        self._read: Position | None = None  # None: nothing was read yet
        self._seen: set[Position] = set()  # by lookups since then

    @property
    def since(self) -> str:
        """From which entry on, itself included, the log is to be read next."""
        return "-" if self._read is None else f"{self._read[0]}-{self._read[1]}"

    def may_keep(self, position: Position) -> bool:
        """May what was looked up at `position` be kept?"""
        if self._read is None or position < self._read:
            return False
        self._seen.add(position)
        return True

    def read(self, newest_first: Sequence[Event]) -> set[str] | None:
        """The subjects to forget, after the log was read from `since` on; None: forget all."""
        positions = [position_of(event.id) for event in newest_first] or [EMPTY]
        whole = positions[-1] == self._read and self._seen.issubset(positions)
        self._read = positions[0]
        self._seen.clear()
        return {event.subject for event in newest_first[:-1]} if whole else None
