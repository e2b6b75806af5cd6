"""Clients that a pool has heard of and that do nothing now, written as the store represents them.

Coming by a million idle clients honestly takes a million requests. Instead they are written to the
keys of fairness/store/lua/state.lua, which no other module outside of the store knows; a test
holds them against what `RedisQueue.clients` reads. Their counters are so high that V never reaches
them: the store keeps them while the others are served.
"""

from __future__ import annotations

import redis

from fairness.store.connection import SCHEMA

CHUNK = 1000
FAR_ABOVE_V = 1e12


def idle_name(number: int) -> str:
    """The name of an idle client."""
    return f"idle-{number:07d}"


def add_idle_clients(server: redis.Redis, pool: str, count: int) -> None:
    """Make a pool know `count` more clients, each with its totals of past service."""
    key = f"{SCHEMA}:{{{pool}}}:"
    for start in range(0, count, CHUNK):
        numbers = range(start, min(start + CHUNK, count))
        with server.pipeline(transaction=False) as pipe:
            pipe.zadd(f"{key}idle", {idle_name(n): FAR_ABOVE_V + 1.37 * n for n in numbers})
            pipe.hset(f"{key}usage", mapping={idle_name(n): _usage(n) for n in numbers})
            pipe.execute()


def _usage(number: int) -> str:
    input_tokens, output_tokens = 10_000 + number, 5_000 + 2 * number
    return f"{input_tokens} 0 {output_tokens} {input_tokens + 2 * output_tokens}"
