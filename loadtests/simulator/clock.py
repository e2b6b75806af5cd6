"""The virtual clock: what happens when.

Events of one moment happen in the order in which they were planned, so that runs repeat.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

Act = Callable[[], None]


class Clock:
    """Plans events and lets them happen. Times are seconds since the start."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events = 0
        self._heap: list[tuple[float, int, Act]] = []
        self._planned = 0
        self._stopped = False

    def at(self, time: float, act: Act) -> None:
        """Plan an event at a time that is not past."""
        self._planned += 1
        heapq.heappush(self._heap, (time, self._planned, act))

    def after(self, delay: float, act: Act) -> None:
        """Plan an event `delay` seconds from now."""
        self.at(self.now + delay, act)

    def run(self) -> None:
        """Let events happen until there are none or one of them says `stop`."""
        heap, pop = self._heap, heapq.heappop
        self._stopped = False
        while heap and not self._stopped:
            self.now, _, act = pop(heap)
            self.events += 1
            act()

    def stop(self) -> None:
        """Let this event be the last."""
        self._stopped = True
