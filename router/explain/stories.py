"""The last stories of one router, a bounded number of them.

Which ones: the first so many of each second, of one client at most a quarter of those; that bounds
what telling them costs. When there are too many, the oldest of the client that has most is
forgotten, so that a flood of one client leaves the stories of the others.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator

from fairness.lowest_first import LowestFirst
from router.explain.story import Story


class Stories:
    """O(log clients) a story. `find` and iterating are for people: O(stories)."""

    def __init__(self, keep: int, per_second: int, clock: Callable[[], float]) -> None:
        """keep: stories at most. clock: seconds, of any origin."""
        self._keep = keep
        self._per_second = per_second
        self._per_client = max(1, per_second // 4)
        self._clock = clock
        self._second = -1
        self._taken_now = 0
        self._taken: Counter[str] = Counter()
        self._of: dict[str, deque[Story]] = {}
        self._fullest = LowestFirst(self._fullness)
        self._count = 0
        self.forgotten: list[str] = []  # ids of those the store has; it is to forget them, too

    def takes(self, client: str) -> bool:
        """Is the next request of this client to be one?"""
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._taken_now = 0
            self._taken.clear()
        if self._taken_now >= self._per_second or self._taken[client] >= self._per_client:
            return False
        self._taken_now += 1
        self._taken[client] += 1
        return True

    def add(self, story: Story) -> None:
        """Keep it."""
        name = story.client.name
        self._of.setdefault(name, deque()).append(story)
        self._fullest.add(name)
        self._count += 1
        if self._count > self._keep:
            self._forget_one()

    def find(self, request: str) -> Story | None:
        """The story of a request."""
        return next((story for story in self if story.request == request), None)

    def __iter__(self) -> Iterator[Story]:
        for stories in self._of.values():
            yield from stories

    def __len__(self) -> int:
        return self._count

    def _fullness(self, client: str) -> tuple[int, str]:
        return -len(self._of[client]), client

    def _forget_one(self) -> None:
        client = self._fullest.lowest()
        assert client is not None, "there are stories"
        story = self._of[client].popleft()
        self._count -= 1
        if story.written:
            self.forgotten.append(story.request)
        if not self._of[client]:
            self._fullest.discard(client)
            del self._of[client]
