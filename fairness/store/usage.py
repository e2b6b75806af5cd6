"""What clients use of a pool, by the day.

Days are UTC by the store's clock, numbered since 1970. Tokens count on the day on which they are
charged, a request on the day it ends, its wait on the day it is granted; what is given back is
taken off the day on which that happens. So a request over midnight is in two days, and a day may
even be below zero; the sum over all days is what the client was told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Protocol

DAY_MS = 86_400_000
EPOCH = date(1970, 1, 1)


def day_of(when: date) -> int:
    """The number of a day."""
    return (when - EPOCH).days


def date_of(day: int) -> date:
    """The day of a number."""
    return EPOCH + timedelta(days=day)


def today() -> date:
    """The day by this machine's clock, in UTC."""
    return datetime.now(UTC).date()


@dataclass(slots=True)
class Used:
    """What was used. requests: that ended, of those that reached an engine; cached: tokens of
    `input` from the prefix cache; waited: milliseconds in line until granted."""

    requests: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0
    service: float = 0.0
    waited: float = 0.0

    def add(self, other: Used) -> None:
        """Add what else was used."""
        self.requests += other.requests
        self.input += other.input
        self.cached += other.cached
        self.output += other.output
        self.service += other.service
        self.waited += other.waited


@dataclass(frozen=True, slots=True)
class LastDays:
    """Client -> its last day, and what it used then. oldest: the first day that is kept."""

    oldest: int
    used: dict[str, tuple[int, Used]]


class UsageSource(Protocol):
    """One pool's usage as it is kept; read it through `DailyUsage`."""

    async def last_days(self, clients: Sequence[str] | None = None) -> LastDays:
        """Of these clients, or of all. O(clients). Raises StoreUnavailableError."""
        ...

    async def used_on(self, day: int, clients: Sequence[str] | None = None) -> dict[str, Used]:
        """What these clients, or all, used on a day that was not their last; nothing for days
        that are not kept. O(clients of that day). Raises StoreUnavailableError."""
        ...


class DailyUsage:
    """One pool's usage, a day at a time."""

    def __init__(
        self, source: UsageSource, last: LastDays, clients: Sequence[str] | None = None
    ) -> None:
        """last: read before any day, so that whoever begins another day meanwhile is not missed."""
        self._source = source
        self._clients = clients
        self.oldest = last.oldest
        self._last: dict[int, dict[str, Used]] = {}
        for client, (day, used) in last.used.items():
            self._last.setdefault(day, {})[client] = used

    @classmethod
    async def open(cls, source: UsageSource, clients: Sequence[str] | None = None) -> DailyUsage:
        """Of these clients, or of all. O(clients). Raises StoreUnavailableError."""
        return cls(source, await source.last_days(clients), clients)

    async def on(self, day: int) -> dict[str, Used]:
        """Who used what on a day; nothing for days that are not kept. O(clients of that day).

        Raises StoreUnavailableError.
        """
        if day < self.oldest:
            return {}
        rows = self._last.get(day, {}) | await self._source.used_on(day, self._clients)
        return {client: used for client, used in rows.items() if used != Used()}
