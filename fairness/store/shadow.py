"""What a fair order would have changed: the report of the policy `shadow`, which serves first come,
first served.

At each grant VTC is asked whose turn it would have been, by the counters of that moment. Where it
was another client's than the one's that is served, the one **went ahead**, the other was **passed
over**. These are decisions, not requests: a request that waits in vain for a hundred grants is
passed over a hundred times, which is how much sooner it would have come. Service is what the grants
were charged when they were made: an estimate of the prompt and the predicted output.

Cost: the look at VTC's heaps that any grant under VTC costs, O(log clients), and a record of each
of the two clients. lua/shadow.lua does the same on a server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class Shadow:
    """One client: grants it had; of these, those that VTC would have given to another; grants of
    others that VTC would have given to it; and the service of both."""

    grants: int = 0
    went_ahead: int = 0
    passed_over: int = 0
    service_ahead: float = 0.0
    service_passed: float = 0.0

    @property
    def gain(self) -> float:
        """Service that would have come sooner under VTC; below 0: later."""
        return self.service_passed - self.service_ahead

    def add(self, other: Shadow) -> None:
        """Add what was noted elsewhere."""
        self.grants += other.grants
        self.went_ahead += other.went_ahead
        self.passed_over += other.passed_over
        self.service_ahead += other.service_ahead
        self.service_passed += other.service_passed


@dataclass(frozen=True, slots=True)
class ShadowReport:
    """since: when `shadow` was last switched on, milliseconds since 1970; 0 for never."""

    since: int
    clients: Mapping[str, Shadow]


class ShadowBook:
    """The notes of a pool in memory; for good, as clients are."""

    def __init__(self) -> None:
        self._since = 0
        self._clients: dict[str, Shadow] = {}

    def begin(self, now: int) -> None:
        """Begin anew. now: milliseconds."""
        self._since = now
        self._clients.clear()

    def note(self, served: str, turn: str, service: float) -> None:
        """A grant. turn: whose it was under VTC."""
        client = self._of(served)
        client.grants += 1
        if turn != served:
            client.went_ahead += 1
            client.service_ahead += service
            other = self._of(turn)
            other.passed_over += 1
            other.service_passed += service

    def report(self) -> ShadowReport:
        """As it is by now. O(clients)."""
        return ShadowReport(self._since, dict(self._clients))

    def _of(self, client: str) -> Shadow:
        return self._clients.setdefault(client, Shadow())


def total(reports: Iterable[ShadowReport]) -> ShadowReport:
    """Several pools as one, since the first of them."""
    since, clients = 0, dict[str, Shadow]()
    for report in reports:
        if report.since:
            since = min(since or report.since, report.since)
        for client, shadow in report.clients.items():
            clients.setdefault(client, Shadow()).add(shadow)
    return ShadowReport(since, clients)
