"""What clients use by the day, in memory; lua/usage.lua does the same."""

from __future__ import annotations

from collections.abc import Sequence

from fairness.store.memory_tree import Client
from fairness.store.usage import Used

DAYS_LIMIT = 100  # as in lua/sweep.lua


class UsageByDay:
    """Day -> client -> what it used. A client's days only grow, whatever the clock says."""

    def __init__(self, retention_days: int) -> None:
        self._retention_days = retention_days
        self._days: dict[int, dict[str, Used]] = {}
        self.oldest: int | None = None  # the first day that is kept; None before the first call

    def begin(self, today: int) -> None:
        """A call begins."""
        if self.oldest is None:
            self.oldest = self._oldest_on(today)

    def of(self, client: Client, today: int) -> Used:
        """To be added to. O(1)."""
        if client.used is None or client.day < today:
            client.day = today
            client.used = self._days.setdefault(today, {})[client.name] = Used()
        return client.used

    def on(self, day: int, clients: Sequence[str] | None = None) -> dict[str, Used]:
        """What these clients, or all, used on a day."""
        used = self._days.get(day, {})
        return {
            client: used[client]
            for client in (used if clients is None else clients)
            if client in used
        }

    def forget_old(self, today: int) -> None:
        """Forget days that are kept no longer."""
        assert self.oldest is not None
        self.oldest = max(self.oldest, min(self._oldest_on(today), self.oldest + DAYS_LIMIT))
        for day in [day for day in self._days if day < self.oldest]:
            del self._days[day]

    def _oldest_on(self, today: int) -> int:
        return today - self._retention_days + 1
