"""How many more requests the memory of an engine is likely to hold."""

from __future__ import annotations

RECENT = 20


class RoomEstimate:
    """A guess from what was admitted lately. In any unit of memory: blocks, tokens.

    An engine knows what is free, not what comes next; it takes what comes for about as large as the
    last `RECENT` requests were (their exponentially weighted mean). Wrong guesses do no harm: who
    was granted too early waits at the engine, and one more than fits is always let come
    (`replicas.lease_book`).
    """

    def __init__(self) -> None:
        self._mean: float | None = None

    def admitted(self, size: float) -> None:
        """Note the memory that a request took when it was admitted."""
        if self._mean is None:
            self._mean = size
        else:
            self._mean += (size - self._mean) / RECENT

    def fits(self, free: float) -> int | None:
        """Return how many would fit into this; None before the first was seen."""
        return int(free / self._mean) if self._mean else None
