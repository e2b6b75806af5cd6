"""How far the counters that order a batch lag behind the cluster's.

A replica tells the global queue what it has charged, hears its clients' counters, and hands them to
the engine. When they get there they are as old as the exchange whose charges were told: that age,
in seconds, and what this engine has charged one client meanwhile, in service, are the lag. Its
service is what the bound on unfairness grows by (docs/theory.md); the other replicas' charges of
the same time are the rest of it, and the same lag on their side.

While the global queue is away the age grows, and says for how long the engine has gone by its own
counters. Pure: no clock, no store.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lag:
    """seconds: age of the counters in use. service: charged to one client meanwhile, the most."""

    seconds: float = 0.0
    service: float = 0.0


class LagMeter:
    """The worst lag of a while. O(1) memory."""

    def __init__(self) -> None:
        self._as_of: float | None = None  # of the counters in use; None: no one is charged
        self._worst = Lag()

    def in_use(self, as_of: float, now: float, charged_since: Iterable[float]) -> None:
        """Counters as of that time order the batch from now on."""
        seconds = now - as_of
        service = max(charged_since, default=0.0)
        self._as_of = as_of
        self._worst = Lag(max(self._worst.seconds, seconds), max(self._worst.service, service))

    def idle(self) -> None:
        """No one is charged: there is nothing to lag behind."""
        self._as_of = None

    def take(self, now: float) -> Lag:
        """Return the worst since the last call, the age of what is in use now included."""
        age = 0.0 if self._as_of is None else now - self._as_of
        worst, self._worst = self._worst, Lag()
        return Lag(max(worst.seconds, age), worst.service)
