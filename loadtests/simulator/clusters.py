"""Servers without a network between: one central line, or a line at each server.

These are the systems that Fairlane is compared with, and what it would be if messages took no time
and counters were exact (`Central`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from loadtests.simulator.engine import Engine, Line
from loadtests.simulator.gates import RequestsPerMinute
from loadtests.simulator.job import Job
from loadtests.simulator.systems import Front, Site


class ArrivalLine(Line, Protocol):
    """A line that requests can be put into."""

    def add(self, job: Job) -> None:
        """A request arrives."""
        ...


class Central:
    """One line for all servers; a request is bound to a server when it enters its batch."""

    def __init__(self, site: Site, line: ArrivalLine) -> None:
        self._line = line
        self._engines = [Engine(site.clock, site.server, self) for _ in range(site.replicas)]

    def arrive(self, job: Job) -> None:
        """See `systems.Front`."""
        self._catch_up()
        self._line.add(job)
        for engine in self._engines:
            engine.wake()

    def numbers(self) -> dict[str, float]:
        """See `systems.Front`."""
        return {}

    # The engines see the line through this object, so that what the others have made is charged
    # before anyone is chosen.

    def first(self) -> Job | None:
        """See `engine.Line`."""
        self._catch_up()
        return self._line.first()

    def admit(self, job: Job) -> None:
        """See `engine.Line`."""
        self._line.admit(job)

    def made(self, jobs: Collection[Job], tokens: int) -> None:
        """See `engine.Line`."""
        self._line.made(jobs, tokens)

    def ended(self, jobs: Collection[Job], batch: Collection[Job]) -> None:
        """See `engine.Line`."""
        self._line.ended(jobs, batch)

    @property
    def steady(self) -> bool:
        """With several engines, another one may take the first."""
        return self._line.steady and len(self._engines) == 1

    def _catch_up(self) -> None:
        for engine in self._engines:
            engine.catch_up()


class Station:
    """A server with its own line."""

    def __init__(self, site: Site, line: ArrivalLine) -> None:
        self._line = line
        self._present = 0
        self.engine = Engine(site.clock, site.server, line)

    @property
    def load(self) -> int:
        """Requests that wait or run here."""
        return self._present

    @property
    def waiting(self) -> int:
        """Requests that wait here."""
        return self._present - len(self.engine.batch)

    def add(self, job: Job) -> None:
        """A request comes to stay."""
        over = job.over

        def leave(ended: Job) -> None:
            self._present -= 1
            over(ended)

        job.over = leave
        self._present += 1
        self.engine.catch_up()
        self._line.add(job)
        self.engine.wake()


Choose = Callable[[Job, list[Station]], Station]


class BoundAtArrival:
    """A line at each server; `choose` says where a request goes as it arrives."""

    def __init__(self, site: Site, lines: Iterable[ArrivalLine], choose: Choose) -> None:
        self._stations = [Station(site, line) for line in lines]
        self._choose = choose

    def arrive(self, job: Job) -> None:
        """See `systems.Front`."""
        self._choose(job, self._stations).add(job)

    def numbers(self) -> dict[str, float]:
        """See `systems.Front`."""
        return {}


class RoundRobin:
    """The servers in turn."""

    def __init__(self) -> None:
        self._next = 0

    def __call__(self, job: Job, stations: list[Station]) -> Station:
        station = stations[self._next % len(stations)]
        self._next += 1
        return station


def least_loaded(job: Job, stations: list[Station]) -> Station:
    """The server with the fewest requests, waiting and running; the first of equals."""
    return min(stations, key=lambda station: station.load)


class Gated:
    """A system behind a rate limit."""

    def __init__(self, site: Site, gate: RequestsPerMinute, front: Front) -> None:
        self._clock = site.clock
        self._gate = gate
        self._front = front

    def arrive(self, job: Job) -> None:
        """See `systems.Front`."""
        if self._gate.admits(job.client, self._clock.now):
            self._front.arrive(job)
        else:
            job.end("refused", self._clock.now)

    def numbers(self) -> dict[str, float]:
        """See `systems.Front`."""
        return self._front.numbers()
