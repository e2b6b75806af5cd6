"""Clients that a pool has heard of and that do nothing now, written as the store represents them.

Coming by a million idle clients honestly takes a million requests. Instead their records are
written as fairness/store/lua/layouts.lua does, which no other module outside of the store knows; a
test holds them against what `RedisQueue.clients` reads. Their counters are so high that V never
reaches them: the store keeps them while the others are served.
"""

from __future__ import annotations

import redis

from fairness.groups import ROOT
from fairness.store.connection import SCHEMA
from fairness.store.redis_store import CLIENT, USED

CHUNK = 1000
FAR_ABOVE_V = 1e12
A_DAY = 20_000  # the last on which they used anything


def idle_name(number: int) -> str:
    """The name of an idle client."""
    return f"idle-{number:07d}"


def add_idle_clients(server: redis.Redis, pool: str, count: int) -> None:
    """Make a pool know `count` more clients, each with its totals of past service."""
    for start in range(0, count, CHUNK):
        numbers = range(start, min(start + CHUNK, count))
        server.hset(
            f"{SCHEMA}:{{{pool}}}:clients", mapping={idle_name(n): _record(n) for n in numbers}
        )


def _record(number: int) -> bytes:
    input_tokens, output_tokens = 10_000 + number, 5_000 + 2 * number
    service = input_tokens + 2 * output_tokens
    counter, group = FAR_ABOVE_V + 1.37 * number, ROOT.encode()
    totals = (service, input_tokens, 0, output_tokens)
    last_day = USED.pack(A_DAY, 1, *totals[1:], service, 0)
    return CLIENT.pack(counter, *totals, 0, 0, len(group)) + group + last_day
