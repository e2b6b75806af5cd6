"""Random arrivals and lengths: what our workloads are made of.

Each client draws from a stream of its own, so one more client changes nothing for the others, and
the same seed gives the same requests.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator

from loadtests.workloads.workload import Request, Workload


@dataclass(frozen=True, slots=True)
class Lengths:
    """Log-normal lengths in tokens, as those of chats are: half are longer than ``median``.

    spread: the standard deviation of the logarithm; 0 for one length. longest: the rest is cut.
    """

    median: float
    spread: float = 0.0
    longest: int = 1024

    def draw(self, random: Generator, count: int) -> list[int]:
        """Return so many lengths, each at least 1."""
        drawn = self.median * np.exp(self.spread * random.standard_normal(count))
        lengths: list[int] = np.clip(np.rint(drawn), 1, self.longest).astype(int).tolist()
        return lengths


def stream(seed: int, client: str) -> Generator:
    """Return the random stream of one client."""
    return np.random.default_rng([seed, *client.encode()])


def poisson(random: Generator, rate: float, start: float, end: float) -> list[float]:
    """Return random arrivals at a mean rate (per second) from ``start`` to ``end`` (seconds)."""
    count = int(random.poisson(rate * max(0.0, end - start)))
    times: list[float] = np.sort(random.uniform(start, end, size=count)).tolist()
    return times


def on_and_off(times: Iterable[float], period: float, *, begins_on: bool = True) -> Iterator[float]:
    """Leave out the arrivals of every second period (seconds)."""
    return (at for at in times if (math.floor(at / period) % 2 == 0) == begins_on)


def requests(
    random: Generator, client: str, times: Iterable[float], inputs: Lengths, outputs: Lengths
) -> list[Request]:
    """Return one request at each time, with random lengths."""
    when = list(times)
    tokens_in, tokens_out = inputs.draw(random, len(when)), outputs.draw(random, len(when))
    return [Request(at, client, i, o) for at, i, o in zip(when, tokens_in, tokens_out, strict=True)]


def merged(
    name: str, *parts: Iterable[Request], weights: dict[str, float] | None = None
) -> Workload:
    """Return a workload of all these requests."""
    together = sorted((request for part in parts for request in part), key=lambda r: r.at)
    return Workload(name, tuple(together), weights or {})
