"""Systems to compare, by name: what stands between arriving requests and simulated servers.

A system is a function that builds its parts at a `Site` (clock, servers, seed) and returns the
`Front` that requests arrive at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol

from loadtests.simulator.clock import Clock
from loadtests.simulator.hardware import Server
from loadtests.simulator.job import Job


@dataclass(frozen=True, slots=True)
class Site:
    """What a system is built with. random: the only source of chance."""

    clock: Clock
    server: Server
    replicas: int
    random: Random


class Front(Protocol):
    """Where requests arrive."""

    def arrive(self, job: Job) -> None:
        """Take this request; `job.end` is called when it is over."""
        ...

    def numbers(self) -> dict[str, float]:
        """What the system tells of itself."""
        ...


System = Callable[[Site], Front]
