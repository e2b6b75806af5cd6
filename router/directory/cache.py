"""What one router remembers of keys, within bounds. Pure, and for one task at a time.

To forget what a change touches costs O(1), however many keys that are: an entry holds a mark for
each subject it depends on, shared with all others that do; a change spoils the mark, and an entry
with a spoilt mark is dropped when it is asked for, or when it is the oldest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from weakref import WeakValueDictionary

from router.clients import Client

KNOWN = 100_000  # keys, about 1 kB each
UNKNOWN = 10_000  # hashes that are nobody's, about 0.2 kB each
EVERYTHING = ""  # a subject of every entry


@dataclass(frozen=True, slots=True)
class Entry:
    """Whose a key is. refusal: why it opens nothing, or "". expires: milliseconds since 1970, 0
    for never. subjects: what a change of would change this."""

    client: Client
    refusal: str = ""
    expires: int = 0
    subjects: tuple[str, ...] = ()


class _Mark:
    """Has a subject changed since entries about it were made?"""

    __slots__ = ("__weakref__", "spoilt")

    def __init__(self) -> None:
        self.spoilt = False


class KeyCache:
    """Hash of a key -> its entry; the least recently used make room. O(1) each.

    Keys that nobody has are remembered apart, so that strangers can't push out those of clients.
    """

    def __init__(self, known: int = KNOWN, unknown: int = UNKNOWN) -> None:
        self._most_known = known
        self._most_unknown = unknown
        self._known: OrderedDict[str, tuple[Entry, tuple[_Mark, ...]]] = OrderedDict()
        self._unknown: OrderedDict[str, None] = OrderedDict()
        self._marks: WeakValueDictionary[str, _Mark] = WeakValueDictionary()  # of entries

    def __len__(self) -> int:
        return len(self._known) + len(self._unknown)

    def get(self, hashed: str) -> Entry | None:
        """What is known of a key that somebody has."""
        found = self._known.get(hashed)
        if found is None:
            return None
        entry, marks = found
        for mark in marks:
            if mark.spoilt:
                del self._known[hashed]
                return None
        self._known.move_to_end(hashed)
        return entry

    def is_unknown(self, hashed: str) -> bool:
        """Is it known that nobody has this key?"""
        return hashed in self._unknown

    def put(self, hashed: str, entry: Entry | None) -> None:
        """Remember whose a key is (None: nobody's)."""
        self._known.pop(hashed, None)
        self._unknown.pop(hashed, None)
        if entry is None:
            self._unknown[hashed] = None
            if len(self._unknown) > self._most_unknown:
                self._unknown.popitem(last=False)
        else:
            marks = tuple(map(self._mark, (EVERYTHING, *entry.subjects)))
            self._known[hashed] = entry, marks
            if len(self._known) > self._most_known:
                self._known.popitem(last=False)

    def forget(self, subjects: Iterable[str]) -> None:
        """These have changed. What nobody had, somebody may have now."""
        for subject in subjects:
            mark = self._marks.pop(subject, None)
            if mark is not None:
                mark.spoilt = True
            self._unknown.clear()

    def clear(self) -> None:
        """Forget all."""
        self.forget([EVERYTHING])

    def _mark(self, subject: str) -> _Mark:
        mark = self._marks.get(subject)
        if mark is None:
            mark = self._marks[subject] = _Mark()
        return mark
