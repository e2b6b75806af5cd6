"""Who is charged for what a simulated server does, by the product's own counters.

`Accounts` keeps `VirtualTokenCounters` and knows who waits. Several lines (one for each server)
may share one: then the counters are global and exact, which no real system has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

from fairness.counters import VirtualTokenCounters
from loadtests.simulator.job import Job
from loadtests.simulator.prices import Price


class Accounts:
    """Counters, and what moves them. weight and price: see `fairness.counters` and `prices`.

    lifts: whether a client that comes back is lifted (`fairness.policy`).
    to_the_last: whether, with nobody waiting, it is lifted to the client that left last. (The paper
    does; the recorded server does not.) burst: service that it is ahead of those who wait.
    """

    def __init__(
        self, price: Price, *, lifts: bool = True, to_the_last: bool = True, burst: float = 0.0
    ) -> None:
        self._price = price
        self._lifts = lifts
        self._to_the_last = to_the_last
        self.counters = VirtualTokenCounters(burst=burst)
        self._waiting: Counter[str] = Counter()
        self._lowered: list[Callable[[str], None]] = []

    def on_lowered(self, act: Callable[[str], None]) -> None:
        """Whom to tell that a client's counter has gone down."""
        self._lowered.append(act)

    def arrived(self, job: Job) -> None:
        """It waits."""
        counters, client = self.counters, job.client
        alone = not self._waiting
        counters.lifts = self._lifts and (self._to_the_last or not alone)
        counters.join(client, job.weight)
        self._waiting[client] += 1

    def admitted(self, job: Job) -> None:
        """It runs."""
        self.counters.charge(job.client, self._price.admission(job))
        self._waiting[job.client] -= 1
        if not self._waiting[job.client]:
            del self._waiting[job.client]
            self.counters.leave(job.client)

    def made(self, jobs: Collection[Job], tokens: int) -> None:
        """Each of these has made so many tokens. (The hot path.)"""
        if self._price.per_token is not None:
            for client, count in Counter([job.client for job in jobs]).items():
                self.counters.charge(client, self._price.per_token * tokens * count)
            return
        for job in jobs:
            before, job.made = job.made, job.made + tokens
            if service := self._price.tokens(job, before, job.made):
                self.counters.charge(job.client, service)

    def ended(self, jobs: Collection[Job], batch: Collection[Job]) -> None:
        """These have made their last token in this batch's last step."""
        if self._price.surcharge:
            for job in batch:
                self.counters.charge(job.client, self._price.surcharge)
        for job in jobs:
            service = self._price.ending(job)
            if service:
                self.counters.charge(job.client, service)
            if service < 0:
                for lowered in self._lowered:
                    lowered(job.client)
