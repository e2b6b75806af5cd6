"""A noisy neighbour: who sends what, at which step of the engine.

Arrivals are tied to steps and not to time: every scheduler then gets the same requests in the same
states of progress, however fast the machine is at the moment, and does the same work.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

FLOOD = "flood"
MODEST = ("ann", "ben")


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request of a client at a step, with the lengths of its prompt and answer in tokens."""

    step: int
    client: str
    prompt: int
    output: int


@dataclass(frozen=True, slots=True)
class NoisyNeighbour:
    """One client sends many requests at once; two others come later with a small burst each.

    Lengths vary by half up and down around ``prompt`` and ``output`` (tokens), all drawn from one
    seed. Everybody's are alike: were the modest clients' answers shorter, who is served last would
    decide how long the run's end is, in which the batch empties, and that is no cost of fairness.
    """

    flood: int
    burst: int
    prompt: int
    output: int
    seed: int = 2024

    @property
    def longest(self) -> int:
        """Tokens of the longest request that can be drawn."""
        return self.longest_prompt + self.output + self.output // 2

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt that can be drawn."""
        return self.prompt + self.prompt // 2

    def arrivals(self) -> list[Arrival]:
        """Return all requests in the order they come."""
        rng = random.Random(self.seed)

        def about(tokens: int) -> int:
            return rng.randint(tokens - tokens // 2, tokens + tokens // 2)

        def some(count: int, step: int, client: str) -> Iterator[Arrival]:
            for _ in range(count):
                yield Arrival(step, client, about(self.prompt), about(self.output))

        come = list(some(self.flood, 0, FLOOD))
        for number, client in enumerate(MODEST, start=1):
            come += some(self.burst, number * self.output // 2, client)
        return come
