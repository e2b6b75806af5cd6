"""The global queue in Redis or Valkey (6.2 or later): one script call a round trip.

The script is joined from `lua/` at load time: the state, the orders, placements and predictors, the
verbs, the call; lua/state.lua explains how a call works. All keys of a pool share one hash tag, so
a pool lives on one node of a Cluster. Grants for other routers are published on a channel each;
those may be lost and are then reconciled.
"""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError, ResponseError
from redis.typing import EncodableT

from fairness.groups import ROOT, Group, parent_of_group
from fairness.limits import Rates, Refusal
from fairness.store.connection import SCHEMA
from fairness.store.contract import (
    Call,
    CallRefusedError,
    ClientState,
    Grant,
    GroupState,
    PoolState,
    QueueSettings,
    ReplicaState,
    Reply,
    Sender,
    StoreUnavailableError,
)
from fairness.store.explain import Choice, End, Place, Standing
from fairness.store.script_errors import script_failed
from fairness.store.shadow import Shadow, ShadowReport
from fairness.store.usage import LastDays, Used

# The records of a client, of what it used on a day (after its group in that), and of a group, in
# lua/layouts.lua and lua/usage.lua; more follows.
CLIENT = struct.Struct("<ddqqqIIH")
USED = struct.Struct("<IIqqqdd")
GROUP = struct.Struct("<dddII")
SHADOW = struct.Struct("<IIIdd")  # lua/shadow.lua
PAGE = 1000  # records

STATE = ("state", "records", "usage", "layouts", "shadow", "classes", "heap", "sets", "session")
VERBS = (
    "moves", "order", "place", "predict", "explain", "submit", "offer", "charge", "settle",
    "served_elsewhere",
)  # fmt: skip
RARE_VERBS = (
    "undo", "cancel", "requeue", "reconcile", "policy", "resync", "sweep", "leave", "pool",
    "ends",
)  # fmt: skip


@cache
def script_text() -> str:
    """The whole script. Every call makes its functions anew, hence the two functions around them:

    - Those of rare verbs, and of limits, are made when the first such verb is met (call.lua).
    - A variable of an enclosing function is bound at once; one of the same function, after a
      search among all that were bound before. So what builds on the state is a function within
      (which may name 60 variables from outside).
    """
    return "\n".join(
        (
            *(_part(name) for name in STATE),
            "return (function()",
            *(_part(name) for name in VERBS),
            "local function define_rare_verbs()",
            *(_part(name) for name in RARE_VERBS),
            "end",
            _part("grant"),
            "local function define_limits()",
            _part("limits"),
            "end",
            _part("call"),
            "end)()",
        )
    )


def _part(name: str) -> str:
    return (files("fairness.store") / "lua" / f"{name}.lua").read_text(encoding="utf-8")


def _decode(raw: Any) -> Reply:
    grants, gone, counters, voided, unknown, pool, (lost,), standings, ends, refused, rates = raw
    return Reply(
        grants=_grants(grants),
        gone=tuple(gone),
        counters={counters[i]: float(counters[i + 1]) for i in range(0, len(counters), 2)},
        voided=tuple(voided),
        unknown=tuple(unknown),
        lost=lost == "1",
        pool=_pool(pool) if pool else None,
        standings={standings[i]: _standing(standings[i + 1]) for i in range(0, len(standings), 2)},
        ends=tuple(map(_end, ends)),
        refused={
            request: Refusal(node, name, *numbers)
            for request, node, name, *numbers in zip(*[iter(refused)] * 6, strict=True)
        },
        rates={
            request: Rates.of(numbers) for request, *numbers in zip(*[iter(rates)] * 7, strict=True)
        },
    )


def _pool(flat: list[str]) -> PoolState:
    replicas = {
        flat[i]: ReplicaState(flat[i + 1], flat[i + 2] == "1") for i in range(4, len(flat), 3)
    }
    return PoolState(flat[0], int(flat[1]), float(flat[2]), replicas, int(flat[3]))


def _grants(flat: list[str]) -> tuple[Grant, ...]:
    return tuple(
        Grant(request, lease, replica, url, float(counter), _groups(groups), _choice(choice))
        for request, lease, replica, url, counter, groups, choice in zip(
            *[iter(flat)] * 7, strict=True
        )
    )


def _choice(told: str) -> Choice | None:
    if not told:
        return None
    why, _, turn = told.partition("\n")
    charged, tokens, credits, other_credits, other = why.split(" ", 4)
    return Choice(float(charged), float(tokens), int(credits), int(other_credits), other, turn)


def _standing(told: str) -> Standing:
    policy, before_it, levels, of_client = json.loads(told)
    places = tuple(_place(*level) for level in reversed(levels))
    return Standing(policy, before_it, places, of_client)


def _place(node: str, counter: str, ahead: int, first: list[list[str]]) -> Place:
    return Place(node, float(counter), ahead, tuple((name, float(of)) for name, of in first))


def _end(told: str) -> End:
    how, used_input, cached, output, charged, service, lease = told.split(" ", 6)
    tokens = (int(used_input), int(cached), int(output))
    return End(how, *tokens, float(charged), float(service), lease)


def _groups(told: str) -> tuple[Group, ...]:
    lines = (line.split(" ", 2) for line in told.split("\n")[:-1])
    return tuple(Group(name, float(weight), float(counter)) for weight, counter, name in lines)


class RedisQueue:
    """`GlobalQueue` of one pool. Safe to share between tasks; owns nothing but its client."""

    def __init__(
        self,
        redis: Redis,
        pool: str,
        settings: QueueSettings,
        now_ms: Callable[[], int] | None = None,
    ) -> None:
        """now_ms: a clock instead of the server's; all senders must have the same (tests do)."""
        self._redis = redis
        self._prefix = f"{SCHEMA}:{{{pool}}}"
        self._now_ms = now_ms
        self._script: AsyncScript = redis.register_script(script_text())
        prediction = settings.prediction
        self._burst = settings.burst
        self._classes = settings.classes.floors
        self._settings: tuple[EncodableT, ...] = (
            settings.cost.input_weight,
            settings.cost.output_weight,
            settings.cost.cached_input_weight,
            settings.sender_ttl_ms,
            settings.grant_ttl_ms,
            prediction.predictor,
            prediction.share,
            prediction.level,
            prediction.window,
            settings.placement,
            settings.burst,
            settings.usage_retention_days,
            "".join(f"{floor!r} {group}\n" for group, floor in settings.classes.floors.items()),
        )

    async def execute(self, sender: Sender, call: Call) -> Reply:
        """One EVALSHA (with EVAL when the server does not know the script yet).

        Raises StoreUnavailableError, CallRefusedError.
        """
        time = "" if self._now_ms is None else self._now_ms()
        argv: list[EncodableT] = [
            sender.kind, sender.name, call.number, call.acked, *self._settings, time
        ]  # fmt: skip
        for verb, *arguments in call.verbs:
            argv += (verb, len(arguments), *arguments)
        try:
            raw = await self._script(keys=[self._prefix], args=argv)
        except ResponseError as error:
            if script_failed(error):
                raise CallRefusedError(str(error)) from error
            raise StoreUnavailableError(str(error)) from error
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(str(error)) from error
        return _decode(raw)

    async def granted(self, router: str) -> AsyncGenerator[tuple[Grant, ...], None]:
        """Grants published for `router`, until cancelled. Lossy: reconcile what waits long."""
        pubsub: PubSub = self._redis.pubsub()
        try:
            await pubsub.subscribe(f"{self._prefix}:grants:{router}")
            while True:
                message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=1.0)
                if message is not None:
                    yield _grants([str(part) for part in json.loads(message["data"])])
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(str(error)) from error
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    async def clients(self) -> list[ClientState]:
        """Every known client, read page by page: each page is true, not all at one moment."""
        records, starts = await self._records("clients"), await self._starts()
        return [client_state(name.decode(), records[name], starts) for name in sorted(records)]

    async def groups(self) -> list[GroupState]:
        """Every known group, likewise."""
        records, starts = await self._records("groups"), await self._starts()
        found = [group_state(name.decode(), records[name], starts) for name in sorted(records)]
        owed = await self._owed() if self._classes else {}
        return [replace(state, owed=owed.get(state.group)) for state in found]

    async def _owed(self) -> dict[str, float]:
        """What each class with a floor is owed (lua/classes.lua), by its group."""
        try:
            (told,) = await self._redis.hmget(f"{self._prefix}:pool", "owed")
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(str(error)) from error
        lines = (line.split(" ") for line in str(told or "").splitlines())
        by_now = {group: float(due) for group, due in lines}
        return {group: by_now.get(group, 0.0) for group, floor in self._classes.items() if floor}

    async def shadow(self) -> ShadowReport:
        """What a fair order would have changed, read page by page likewise."""
        try:
            (since,) = await self._redis.hmget(f"{self._prefix}:pool", "shadow_since")
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(str(error)) from error
        records = (await self._records("shadow")).items()
        notes = {name.decode(): Shadow(*SHADOW.unpack(record)) for name, record in records}
        return ShadowReport(int(since or 0), notes)

    async def last_days(self, clients: Sequence[str] | None = None) -> LastDays:
        """What each of these clients, or all, used on its last day."""
        try:
            oldest = await self._redis.hmget(f"{self._prefix}:pool", "oldest_day")
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(str(error)) from error
        records = await self._records("clients", clients)
        used = {name.decode(): _last_day(record) for name, record in records.items()}
        return LastDays(int(oldest[0] or 0), used)

    async def used_on(self, day: int, clients: Sequence[str] | None = None) -> dict[str, Used]:
        """What these clients, or all, used on a day that was not their last."""
        records = await self._records(f"usage:{day}", clients)
        return {name.decode(): Used(*USED.unpack(record)[1:]) for name, record in records.items()}

    async def _records(self, kind: str, names: Sequence[str] | None = None) -> dict[bytes, bytes]:
        """The records of these names, or all."""
        found: dict[bytes, bytes] = {}
        key = f"{self._prefix}:{kind}"
        try:
            async for page in self._pages(key) if names is None else self._named(key, names):
                found |= page
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(str(error)) from error
        return found

    async def _starts(self) -> dict[str, float]:
        """Where newcomers start, in the pool itself and in each group."""
        try:
            v, servers = await self._redis.hmget(f"{self._prefix}:pool", "virtual_time", "servers")
        except (RedisError, OSError) as error:
            raise StoreUnavailableError(str(error)) from error
        burst = self._burst * int(servers or 0)
        levels = {ROOT: float(v or 0)}
        for name, record in (await self._records("groups")).items():
            _, _, levels[name.decode()], *_ = GROUP.unpack_from(record)
        return {name: level - burst for name, level in levels.items()}

    async def _pages(self, key: str) -> AsyncIterator[dict[bytes, bytes]]:
        """A hash of binary values, a bounded part of it at a time."""
        cursor = None
        while cursor != 0:
            cursor, page = await self._binary("HSCAN", key, cursor or 0, "COUNT", PAGE)
            yield page

    async def _named(self, key: str, names: Sequence[str]) -> AsyncIterator[dict[bytes, bytes]]:
        for first in range(0, len(names), PAGE):
            some = [name.encode() for name in names[first : first + PAGE]]
            found = zip(some, await self._binary("HMGET", key, *some), strict=True)
            yield {name: record for name, record in found if record is not None}

    async def _binary(self, *command: EncodableT) -> Any:
        """The answer to a command, not decoded."""
        answer: Any = self._redis.execute_command(  # type: ignore[no-untyped-call]
            *command, NEVER_DECODE=True
        )
        return await answer


def client_state(name: str, record: bytes, starts: dict[str, float]) -> ClientState:
    counter, service, used_input, cached, output, waiting, running, size = CLIENT.unpack_from(
        record
    )
    group = record[CLIENT.size : CLIENT.size + size].decode()
    if not waiting and not running:
        counter = max(counter, starts.get(group, 0.0))
    used = (used_input, cached, output)
    return ClientState(name, counter, waiting, running, *used, service, group)


def _last_day(record: bytes) -> tuple[int, Used]:
    *_, size = CLIENT.unpack_from(record)
    day, *used = USED.unpack_from(record, CLIENT.size + size)
    return day, Used(*used)


def group_state(name: str, record: bytes, starts: dict[str, float]) -> GroupState:
    counter, weight, _, waiting, running = GROUP.unpack_from(record)
    if not waiting and not running:
        counter = max(counter, starts.get(parent_of_group(name), 0.0))
    return GroupState(name, weight, counter, waiting, running)
