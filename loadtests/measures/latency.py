"""Time to first token: by client, of the small ones, and beside flooders against alone.

A request that never got a token has no time to first token and is left out here; how many there
were is in `summary`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np

from fairness.measures import PAPER_COST
from loadtests.measures.delivered import Floats
from loadtests.outcome import Run

LARGEST = 3
"""So many clients are not small."""


def ttft_by_client(run: Run) -> dict[str, Floats]:
    """Return each client's times to first token (seconds), in order of arrival."""
    waits: dict[str, list[float]] = {name: [] for name in run.workload.clients}
    for outcome in sorted(run.outcomes, key=lambda outcome: outcome.request.at):
        if outcome.ttft is not None:
            waits[outcome.request.client].append(outcome.ttft)
    return {name: np.array(times, dtype=float) for name, times in waits.items()}


def small_clients(run: Run, *, largest: int = LARGEST) -> tuple[str, ...]:
    """Return all clients but the largest, by the service they ask for; sorted by name."""
    asked = dict.fromkeys(run.workload.clients, 0.0)
    for request in run.workload.requests:
        asked[request.client] += PAPER_COST.of(request.input_tokens, request.output_tokens)
    by_size = sorted(asked, key=lambda name: (-asked[name], name))
    return tuple(sorted(by_size[largest:]))


def ttft_percentile(run: Run, q: float, clients: Collection[str] | None = None) -> float | None:
    """Return a percentile of the time to first token of these clients' requests together.

    In seconds; of all clients by default; None when none of them got a token.
    """
    return _percentile(ttft_by_client(run), q, run.workload.clients if clients is None else clients)


def small_p99_ttft(run: Run) -> float | None:
    """Return the 99th percentile of time to first token of the small clients, in seconds."""
    return ttft_percentile(run, 99, small_clients(run))


def _percentile(waits: Mapping[str, Floats], q: float, clients: Collection[str]) -> float | None:
    together = np.concatenate([np.empty(0), *(waits[name] for name in clients)])
    return float(np.percentile(together, q)) if together.size else None


@dataclass(frozen=True, slots=True)
class Isolation:
    """What others do to a client: percentiles of its time to first token, in seconds."""

    client: str
    alone_p50: float
    alone_p99: float
    beside_p50: float
    beside_p99: float

    @property
    def times_p50(self) -> float:
        """How many times longer it waits beside the others (median): 1 is perfect isolation."""
        return self.beside_p50 / self.alone_p50

    @property
    def times_p99(self) -> float:
        """The same of the 99th percentile."""
        return self.beside_p99 / self.alone_p99


def isolation(alone: Run, beside: Run, client: str) -> Isolation:
    """Compare a client's waits in a run of its own with those beside others.

    Raises:
        ValueError: it got no token in one of them.
    """
    numbers = []
    for run in (alone, beside):
        waits = ttft_by_client(run).get(client)
        if waits is None or not waits.size:
            raise ValueError(f"{client} got no token in the run of {run.system!r}")
        numbers += [float(np.percentile(waits, q)) for q in (50, 99)]
    return Isolation(client, *numbers)
