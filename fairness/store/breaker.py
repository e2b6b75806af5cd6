"""A circuit breaker: a store that is gone must cost nobody's time.

Closed, every call may go. After `FAILURES` failures in a row it opens: calls are refused at once.
After a pause one call, the probe, is let through; if it fails, the pause doubles (up to
`LONGEST_PAUSE_S`), and any success closes the breaker. Pauses are shortened at random, by up to a
half, so that the routers and replicas of a cluster do not come back all at once.

Pure: the clock and the random source are given. Not for several threads.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from fairness.store.contract import StoreUnavailableError

FAILURES = 3
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 1.0


class BreakerOpenError(StoreUnavailableError):
    """The call was not even tried. `retry_in_s`: seconds until it is worth trying again."""

    def __init__(self, retry_in_s: float) -> None:
        super().__init__(f"the store has failed repeatedly; next attempt in {retry_in_s:.2f} s")
        self.retry_in_s = retry_in_s


class Permit(enum.Enum):
    """Leave to make one call; give it back with the call's outcome."""

    CALL = "call"
    PROBE = "probe"


class Breaker:
    """Ask `admit` before each call, then say how it went: `succeeded`, `failed` or `dropped`."""

    def __init__(self, clock: Callable[[], float], random: Callable[[], float]) -> None:
        """clock: seconds, monotonic. random: uniform in [0, 1)."""
        self._clock = clock
        self._random = random
        self._failures = 0  # in a row, while closed
        self._pause_s = FIRST_PAUSE_S
        self._probe_at: float | None = None  # None: closed
        self._probing = False

    @property
    def closed(self) -> bool:
        """May every call go?"""
        return self._probe_at is None

    def admit(self) -> Permit:
        """Leave to make a call. Raises BreakerOpenError."""
        if self._probe_at is None:
            return Permit.CALL
        wait_s = self._probe_at - self._clock()
        if self._probing or wait_s > 0:
            # What a probe will find is not known before it is back.
            raise BreakerOpenError(max(wait_s, FIRST_PAUSE_S) if self._probing else wait_s)
        self._probing = True
        return Permit.PROBE

    def succeeded(self, permit: Permit) -> None:
        """The store answered."""
        self._probe_at = None
        self._probing = False
        self._failures = 0

    def failed(self, permit: Permit) -> None:
        """The store did not answer, or could not serve."""
        if self._probe_at is None:
            self._failures += 1
            if self._failures >= FAILURES:
                self._open(FIRST_PAUSE_S)
        elif permit is Permit.PROBE:
            self._open(min(2 * self._pause_s, LONGEST_PAUSE_S))
        # Else it set out before the breaker opened: its failure is no news.

    def dropped(self, permit: Permit) -> None:
        """The call was given up (cancelled, say): nothing is known."""
        if permit is Permit.PROBE:
            self._probing = False

    def _open(self, pause_s: float) -> None:
        self._pause_s = pause_s
        self._probe_at = self._clock() + pause_s * (1 - self._random() / 2)
        self._probing = False
