"""Rate limits: who is refused at the door."""

from __future__ import annotations

from collections import defaultdict, deque

MINUTE_S = 60.0


class RequestsPerMinute:
    """Refuses a request when its client has had so many accepted in the last 60 s.

    What most services do today (RPM). Refused requests are not tried again.
    """

    def __init__(self, limit: int) -> None:
        """limit: requests."""
        self._limit = limit
        self._accepted: defaultdict[str, deque[float]] = defaultdict(deque)

    def admits(self, client: str, now: float) -> bool:
        """Whether this request may come in; if so, it counts."""
        accepted = self._accepted[client]
        while accepted and accepted[0] <= now - MINUTE_S:
            accepted.popleft()
        if len(accepted) >= self._limit:
            return False
        accepted.append(now)
        return True
