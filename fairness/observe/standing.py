"""How single clients stand in a pool's queue, by name: for people who look at one, or at a page.

Reads a few records, whatever there is besides: O(names) and a round trip or two, O(log backlogged)
for a place in line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from fairness.groups import ROOT, groups_within, parent_of_group
from fairness.observe.board import REQUEST
from fairness.store.connection import SCHEMA
from fairness.store.contract import ClientState, QueueSettings
from fairness.store.link import StoreLink
from fairness.store.locate import StoreSource, settings_of
from fairness.store.redis_store import CLIENT, GROUP, client_state


@dataclass(frozen=True, slots=True)
class Place:
    """Whose turn comes before, on one level of the tree.

    group: those that stand together there ("" for the pool itself). ahead: how many of them have
    something waiting and a smaller counter; of: how many have something waiting.
    """

    group: str
    ahead: int
    of: int


@dataclass(frozen=True, slots=True)
class InLine:
    """A client's line. waited_ms: its first request, so far; 0 with none. places: its own level
    first, then those of its groups; none while nothing waits."""

    waited_ms: int = 0
    places: tuple[Place, ...] = ()


class Standing:
    """Of one pool. Every method raises StoreUnavailableError."""

    def __init__(self, link: StoreLink, pool: str, settings: QueueSettings) -> None:
        self._link = link
        self._prefix = f"{SCHEMA}:{{{pool}}}:"
        self._burst = settings.burst

    @classmethod
    def open(cls, source: StoreSource, pool: str, settings: QueueSettings) -> Standing:
        """In the store at `source`, which may be away. Raises ValueError for an unreadable URL."""
        return cls(StoreLink(settings_of(source), f"{SCHEMA}:{{{pool}}}"), pool, settings)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._link.aclose()

    async def states(self, names: Sequence[str]) -> dict[str, ClientState]:
        """Those of the names that the pool has heard of."""
        return await self._link.call(lambda redis: self._states(redis, names))

    async def in_line(self, client: str) -> InLine:
        """How long it has waited, and who goes before it."""
        return await self._link.call(lambda redis: self._in_line(redis, client))

    async def _states(self, redis: Redis, names: Sequence[str]) -> dict[str, ClientState]:
        if not names:
            return {}
        records, pool = await self._ask(
            redis,
            ("HMGET", self._key("clients"), *names),
            ("HMGET", self._key("pool"), "virtual_time", "servers"),
        )
        found = {n: r for n, r in zip(names, records, strict=True) if r is not None}
        v, servers = (float(value or 0) for value in pool)
        groups = sorted({_group_of(record) for record in found.values()} - {ROOT})
        levels = {ROOT: v}
        if groups:
            (rows,) = await self._ask(redis, ("HMGET", self._key("groups"), *groups))
            levels |= {
                group: GROUP.unpack_from(row)[2]
                for group, row in zip(groups, rows, strict=True)
                if row is not None
            }
        burst = self._burst * servers
        starts = {group: level - burst for group, level in levels.items()}
        return {name: client_state(name, record, starts) for name, record in found.items()}

    async def _in_line(self, redis: Redis, client: str) -> InLine:
        record, first, clock = await self._ask(
            redis,
            ("HGET", self._key("clients"), client),
            ("ZRANGE", self._key(f"line:{client}"), 0, 0),
            ("TIME",),
        )
        if record is None or not first:
            return InLine()
        group = _group_of(record)
        nodes = [client, *groups_within(group)]
        levels = [group, *map(parent_of_group, nodes[1:])]
        commands: list[tuple[Any, ...]] = [("HGET", self._key("requests"), first[0])]
        for node, level in zip(nodes, levels, strict=True):
            key = self._key("backlogged" if level == ROOT else f"backlogged:{level}")
            commands += (("ZRANK", key, node), ("ZCARD", key))
        request, *counts = await self._ask(redis, *commands)
        ranks = zip(levels, counts[::2], counts[1::2], strict=True)
        places = tuple(
            Place(level.strip("/"), ahead, of) for level, ahead, of in ranks if ahead is not None
        )
        now = int(clock[0]) * 1000 + int(clock[1]) // 1000
        queued = now if request is None else int(REQUEST.unpack_from(request)[-1])
        return InLine(max(0, now - queued), places)

    @staticmethod
    async def _ask(redis: Redis, *commands: tuple[Any, ...]) -> list[Any]:
        """The answers, not decoded, in one round trip."""
        async with redis.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command, NEVER_DECODE=True)
            return list(await pipeline.execute())

    def _key(self, kind: str) -> str:
        return self._prefix + kind


def _group_of(record: bytes) -> str:
    size = CLIENT.unpack_from(record)[-1]
    return record[CLIENT.size : CLIENT.size + size].decode()
