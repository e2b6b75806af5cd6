"""The member with the lowest key, while keys keep changing.

Wanted: thousands of keys rise a little on every step of the batch, and only now and then
does somebody ask which is the lowest. Updating a heap on every rise would be wasted work.

Rule: every member has at least one heap entry whose key is **not above** its true key. So a
rise needs no work at all; only a fall pushes a new entry (``add``).

Why ``lowest`` is right: the entry on top is not above any entry, hence not above any
member's true key. If the top still tells the truth about its member, that member is the
lowest. If it doesn't, it is replaced by the truth and we look again.

Cost: ``add`` and each repair are O(log n); the repairs of a ``lowest`` are no more than the
members whose key rose since. Entries of members that left, and second entries of those that
fell, are dropped when they reach the top, or all at once when they outnumber the members (a
rebuild, paid for by the adds and discards that made it necessary), so the heap never holds
more than 2n + 16 entries.
"""

import heapq
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar

M = TypeVar("M", bound=Hashable)
K = TypeVar("K", bound=tuple[Any, ...])

_SLACK = 16


class LowestFirst(Generic[M, K]):
    """A set that knows which member has the lowest ``key(member)``.

    A key is a tuple. Ties go by the members' own order, so where keys may be equal they must have
    one (names).

    An entry is a key with its member at the end, in one flat tuple: the comparisons of a repair
    meet the first numbers of a dozen entries, which lie all over memory, and each tuple within a
    tuple is one more place to go to.
    """

    __slots__ = ("_heap", "_key", "_members")

    def __init__(self, key: Callable[[M], K]) -> None:
        self._key = key
        self._members: dict[M, None] = {}  # a set that iterates in a repeatable order
        self._heap: list[tuple[Any, ...]] = []

    def add(self, member: M) -> None:
        """Add a member, or take note that a member's key went down."""
        self._members[member] = None
        heapq.heappush(self._heap, (*self._key(member), member))
        self._drop_excess()

    def discard(self, member: M) -> None:
        """Remove a member if it is one."""
        self._members.pop(member, None)
        self._drop_excess()

    def lowest(self) -> M | None:
        """Return the member with the lowest key, ``None`` when there are no members."""
        while self._heap:
            top = self._heap[0]
            member: M = top[-1]
            if member not in self._members:
                heapq.heappop(self._heap)
                continue
            entry = (*self._key(member), member)
            if entry == top:
                return member
            heapq.heapreplace(self._heap, entry)
            if self._heap[0] is entry:  # it is still the lowest
                return member
        return None

    def rebuild(self) -> None:
        """Read all keys afresh (after ``key`` itself has changed its meaning). O(n)."""
        self._heap = [(*self._key(member), member) for member in self._members]
        heapq.heapify(self._heap)

    def _drop_excess(self) -> None:
        if len(self._heap) > 2 * len(self._members) + _SLACK:
            self.rebuild()

    def __contains__(self, member: object) -> bool:
        return member in self._members

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[M]:
        return iter(self._members)
