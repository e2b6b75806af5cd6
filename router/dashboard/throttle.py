"""How often one may fail to log in. Pure, within bounds.

Two buckets: a small one for each origin, and a large one for all together, since an origin is in
part what its sender says of itself. A bucket holds failures and leaks; when one is full, nothing
is even looked at, right or wrong, until it has leaked. (Guessing a key that `fairlane` or
`openssl rand` made is hopeless anyway; this is for those that people thought of.)
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

ORIGINS = 1000  # remembered


@dataclass(slots=True)
class Bucket:
    """holds: failures. leaks: a second."""

    holds: float
    leaks: float
    level: float = 0.0
    at: float = 0.0

    def wait_s(self, now: float) -> float:
        """How long until one more fits."""
        self.level = max(0.0, self.level - (now - self.at) * self.leaks)
        self.at = now
        return max(0.0, (self.level + 1 - self.holds) / self.leaks)


class Throttle:
    """Of one router. O(1)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._all = Bucket(200, 10)
        self._origins: OrderedDict[str, Bucket] = OrderedDict()

    def wait_s(self, origin: str) -> float:
        """Seconds until this origin may try again; 0: now."""
        now = self._clock()
        own = self._origins.get(origin)
        return max(self._all.wait_s(now), 0.0 if own is None else own.wait_s(now))

    def failed(self, origin: str) -> None:
        """It tried, and failed."""
        now = self._clock()
        own = self._origins.setdefault(origin, Bucket(10, 1 / 6, at=now))
        self._origins.move_to_end(origin)
        if len(self._origins) > ORIGINS:
            self._origins.popitem(last=False)
        for bucket in (own, self._all):
            bucket.wait_s(now)
            bucket.level += 1
