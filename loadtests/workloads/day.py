"""A day of chats: the arena's clients and conversations, at rates that follow the hours.

The recorded trace is ten minutes long (`arena`), so a day is made from it: each client keeps its
share of the requests and draws its lengths from its own conversations; arrivals are a Poisson
process (seeded) whose rate follows a curve of the day, lowest at 4 o'clock and highest at 16. On
top come bursts: pairs of batch jobs that begin at one moment, one asking for twice as much as the
other, so that what each receives while both wait tells whether sharing is fair.
"""

from __future__ import annotations

import math

import numpy as np

from loadtests.workloads.arena import arena
from loadtests.workloads.arrivals import Lengths, merged, poisson, requests, stream
from loadtests.workloads.workload import Request, Workload

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
SERVER_RATE = 1.9
"""Requests of the arena's lengths a second that one A10G of the simulator serves."""
LOWEST = 0.15
"""The rate at night, of the highest."""
BURSTS_AT = (2.5, 9.75, 15.5, 21.0)
"""Hours at which bursts begin: in the deep night, on the way up, at the top, on the way down."""
BURST_S = 600.0
BURST_PAIR = ("batch-large", "batch-small")
BATCH = Lengths(256, 0.3)


def level(at: float) -> float:
    """Return the rate at this second of the day, of the highest: a cosine, from LOWEST to 1."""
    phase = math.cos((at / DAY_S - 16 / 24) * 2 * math.pi)
    return LOWEST + (1 - LOWEST) * (1 + phase) / 2


def day(
    *, peak: float = 4.0, burst: float = 2.0, seed: int = 0, seconds: float = DAY_S
) -> Workload:
    """Return a day's requests.

    peak: servers' worth of chats at the highest hour. burst: servers' worth that a pair of batch
    jobs asks for, for ten minutes. seconds: less than a day: its beginning, from midnight.
    """
    trace = arena().requests
    of_client: dict[str, list[Request]] = {}
    for request in trace:
        of_client.setdefault(request.client, []).append(request)
    parts = []
    for client, known in of_client.items():
        random = stream(seed, client)
        rate = peak * SERVER_RATE * len(known) / len(trace)
        # Thinned: of a process at the highest rate each arrival is kept by the level of its hour.
        candidates = poisson(random, rate, 0.0, seconds)
        keep = random.random(len(candidates))
        times = [at for at, luck in zip(candidates, keep, strict=True) if luck < level(at)]
        drawn = np.asarray(random.integers(len(known), size=len(times))).tolist()
        parts.append(
            [
                Request(at, client, known[k].input_tokens, known[k].output_tokens)
                for at, k in zip(times, drawn, strict=True)
            ]
        )
    for client, share in zip(BURST_PAIR, (2 / 3, 1 / 3), strict=True):
        random = stream(seed, client)
        times = []
        for hour in BURSTS_AT:
            start = hour * HOUR_S
            end = max(start, min(start + BURST_S, seconds))
            times += poisson(random, burst * SERVER_RATE * share, start, end)
        parts.append(requests(random, client, times, BATCH, BATCH))
    return merged("day", *parts)
