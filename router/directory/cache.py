"""What one router remembers of keys, within bounds. Pure, and for one task at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from router.clients import Client

KNOWN = 100_000  # keys, about 0.7 kB each
UNKNOWN = 10_000  # hashes that are nobody's, about 0.2 kB each


@dataclass(frozen=True, slots=True)
class Entry:
    """Whose a key is. refusal: why it opens nothing, or "". expires: milliseconds since 1970, 0
    for never. subjects: what a change of would change this."""

    client: Client
    refusal: str = ""
    expires: int = 0
    subjects: tuple[str, ...] = ()


class KeyCache:
    """Hash of a key -> its entry; the least recently used make room. O(1) each.

    Keys that nobody has are remembered apart, so that strangers can't push out those of clients.
    """

    def __init__(self, known: int = KNOWN, unknown: int = UNKNOWN) -> None:
        self._most_known = known
        self._most_unknown = unknown
        self._known: OrderedDict[str, Entry] = OrderedDict()
        self._unknown: OrderedDict[str, None] = OrderedDict()
        self._about: dict[str, set[str]] = {}  # subject -> hashes

    def __len__(self) -> int:
        return len(self._known) + len(self._unknown)

    def get(self, hashed: str) -> Entry | None:
        """What is known of a key that somebody has."""
        entry = self._known.get(hashed)
        if entry is not None:
            self._known.move_to_end(hashed)
        return entry

    def is_unknown(self, hashed: str) -> bool:
        """Is it known that nobody has this key?"""
        return hashed in self._unknown

    def put(self, hashed: str, entry: Entry | None) -> None:
        """Remember whose a key is (None: nobody's)."""
        self._drop(hashed)
        if entry is None:
            self._unknown[hashed] = None
            if len(self._unknown) > self._most_unknown:
                self._unknown.popitem(last=False)
            return
        self._unknown.pop(hashed, None)
        self._known[hashed] = entry
        for subject in entry.subjects:
            self._about.setdefault(subject, set()).add(hashed)
        if len(self._known) > self._most_known:
            self._drop(next(iter(self._known)))

    def forget(self, subjects: Iterable[str]) -> None:
        """These have changed. What nobody had, somebody may have now."""
        for subject in subjects:
            for hashed in list(self._about.get(subject, ())):
                self._drop(hashed)
            self._unknown.clear()

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()
        self._unknown.clear()
        self._about.clear()

    def _drop(self, hashed: str) -> None:
        entry = self._known.pop(hashed, None)
        if entry is None:
            return
        for subject in entry.subjects:
            hashes = self._about[subject]
            hashes.discard(hashed)
            if not hashes:
                del self._about[subject]
