"""The directory in Redis or Valkey: reads, and one script for each verb that changes something.

Every method is one round trip, unless it says otherwise, and raises StoreUnavailableError.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar

import orjson
from redis.asyncio import Redis

from fairness.limits import NO_LIMITS, Limits
from fairness.store.link import StoreLink
from router.clients import key_id
from router.directory.follower import Position, position_of
from router.directory.pages import Names, matches
from router.directory.records import (
    Actor,
    ClientRecord,
    Event,
    GroupRecord,
    KeyRecord,
    limits_of,
    limits_text,
)

PREFIX = "fairlane:directory:1:{directory}"
VERBS = (
    "find", "create_client", "change_client", "remove_client", "create_group", "change_group",
    "remove_group", "create_key", "rotate_key", "revoke_key", "note",
)  # fmt: skip
LOG_PAGE = 1000  # more changes than that at once: forget all instead
NAMES_PAGE = 1000
NAMES_LOOKED_AT = 20_000  # by one search
LIST_TIMEOUT_S = 10.0
ENDED_SESSIONS = 10_000  # remembered
ADMIN_CALLS = 8  # at once, each on a connection of its own

T = TypeVar("T")
audit_log = logging.getLogger("fairlane.audit")


class RefusedError(Exception):
    """The directory is not as the change needs it. reason: as the scripts name it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a key is, as the store has it. organisation, team: None where it does not have them."""

    client: ClientRecord
    expires: int
    revoked: int
    organisation: GroupRecord | None
    team: GroupRecord | None


@cache
def script_text(verb: str) -> str:
    """The script of one verb."""
    folder = files("router.directory") / "lua"
    return "\n".join(
        (folder / f"{name}.lua").read_text(encoding="utf-8") for name in ("state", verb)
    )


class DirectoryStore:
    """Safe to share between tasks."""

    def __init__(self, link: StoreLink) -> None:
        self._link = link
        self._admin = asyncio.Semaphore(ADMIN_CALLS)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._link.aclose()

    # What routers read

    async def find(self, hashed: str) -> tuple[Position, Owner | None]:
        """Whose the key of this hash is, and the log's last entry at that moment."""
        position, *owner = await self._link.call(_script("find", key_id(hashed), hashed))
        if not owner:
            return position_of(position), None
        expires, revoked, client, weight, enabled, group, limits, *groups, klass = owner
        record = ClientRecord(
            client,
            float(weight),
            group,
            enabled == "1",
            limits=limits_of(limits),
            priority_class=klass,
        )
        return position_of(position), Owner(
            record,
            int(expires),
            int(revoked),
            _share(group.partition("/")[0], *groups[:2]),
            _share(group, *groups[2:]),
        )

    async def log(self, since: str, limit: int = LOG_PAGE, until: str = "+") -> list[Event]:
        """Entries from `since` to `until`, both included ("-", "+": all), the newest first."""
        rows: Any = await self._link.call(
            lambda redis: redis.xrevrange(_key("log"), until, since, count=limit)
        )
        return [_event(*row) for row in rows]

    # What admins read

    async def client_names(self, after: str, search: str, group: str, limit: int) -> Names:
        """Clients by name; of one group only, unless that is "". A round trip for each thousand
        names looked at."""
        names = _key("members", group) if group else _key("clients")
        return await self._names(names, after, search, limit)

    async def group_names(self, after: str, search: str, limit: int) -> Names:
        """Groups by path, likewise."""
        return await self._names(_key("groups"), after, search, limit)

    async def clients(self, names: list[str]) -> dict[str, ClientRecord]:
        """Those of the names that are clients here."""
        rows = await self._hashes("client", names)
        return {name: _client(name, row) for name, row in rows.items()}

    async def groups(self, paths: list[str]) -> dict[str, GroupRecord]:
        """Those of the paths that are groups here."""
        rows = await self._hashes("group", paths)
        return {path: _group(path, row) for path, row in rows.items()}

    async def key(self, key: str) -> KeyRecord | None:
        """The key of an id."""
        rows = await self._hashes("key", [key])
        return _key_record(key, rows[key]) if rows else None

    async def keys(self, client: str) -> list[KeyRecord]:
        """All keys of a client, oldest first. Two round trips."""
        ids: Any = await self._call(lambda redis: redis.zrange(_key("keys", client), 0, -1))
        rows = await self._hashes("key", ids)
        return [_key_record(key, row) for key, row in rows.items()]

    # What admins change: each raises RefusedError too, and is logged

    async def create_client(
        self,
        who: Actor,
        name: str,
        weight: float,
        group: str,
        *,
        enabled: bool,
        fixed: bool,
        limits: Limits = NO_LIMITS,
        priority_class: str = "",
    ) -> ClientRecord:
        """fixed: the configuration has the group. Refused: `taken`, `no_group`."""
        detail = {"weight": weight, "group": group, "enabled": enabled} | _told(limits)
        if priority_class:
            detail["priority_class"] = priority_class
        row = await self._change(
            "create_client",
            who,
            detail,
            name,
            weight,
            group,
            _flag(fixed),
            _flag(enabled),
            limits_text(limits),
            priority_class,
        )
        return _client(name, row)

    async def change_client(
        self,
        who: Actor,
        name: str,
        *,
        weight: float | None = None,
        enabled: bool | None = None,
        group: str | None = None,
        fixed: bool = False,
        limits: Limits | None = None,
        priority_class: str | None = None,
    ) -> ClientRecord:
        """None: leave it as it is. group: "" for none. priority_class: "" for the first. Refused:
        `unknown`, `no_group`."""
        detail = {
            "weight": weight,
            "group": group,
            "enabled": enabled,
            "priority_class": priority_class,
            "limits": None if limits is None else limits.given(),
        }
        row = await self._change(
            "change_client",
            who,
            {what: value for what, value in detail.items() if value is not None},
            name,
            "" if weight is None else weight,
            "" if enabled is None else _flag(enabled),
            _flag(group is not None),
            group or "",
            _flag(fixed),
            "" if limits is None else limits_text(limits),
            _flag(priority_class is not None),
            priority_class or "",
        )
        return _client(name, row)

    async def remove_client(self, who: Actor, name: str) -> ClientRecord:
        """With all its keys. Refused: `unknown`."""
        return _client(name, await self._change("remove_client", who, {}, name))

    async def create_group(
        self,
        who: Actor,
        path: str,
        weight: float,
        organisation: str,
        *,
        fixed: bool,
        limits: Limits = NO_LIMITS,
    ) -> GroupRecord:
        """organisation: that a team is in; fixed: the configuration has it. Refused: `taken`,
        `no_organisation`."""
        detail = {"weight": weight} | _told(limits)
        row = await self._change(
            "create_group",
            who,
            detail,
            path,
            weight,
            organisation,
            _flag(fixed),
            limits_text(limits),
        )
        return _group(path, row)

    async def change_group(
        self, who: Actor, path: str, weight: float | None = None, limits: Limits | None = None
    ) -> GroupRecord:
        """None: leave it as it is. Refused: `unknown`."""
        detail: dict[str, Any] = {} if weight is None else {"weight": weight}
        if limits is not None:
            detail["limits"] = limits.given()
        row = await self._change(
            "change_group",
            who,
            detail,
            path,
            "" if weight is None else weight,
            "" if limits is None else limits_text(limits),
        )
        return _group(path, row)

    async def remove_group(self, who: Actor, path: str) -> GroupRecord:
        """Refused: `unknown`, `has_members`."""
        return _group(path, await self._change("remove_group", who, {}, path))

    async def create_key(
        self, who: Actor, client: str, hashed: str, label: str, lifetime_ms: int
    ) -> KeyRecord:
        """lifetime_ms: 0 for good. Refused: `unknown`, `too_many_keys`, `id_taken`."""
        key = key_id(hashed)
        detail = {"label": label, "lifetime_ms": lifetime_ms}
        row = await self._change("create_key", who, detail, client, key, hashed, label, lifetime_ms)
        return _key_record(key, row)

    async def rotate_key(self, who: Actor, old: str, hashed: str, overlap_ms: int) -> KeyRecord:
        """A new key with the old one's label and lifetime; the old one ends after the overlap.
        Refused: `unknown`, `dead`, `too_many_keys`, `id_taken`."""
        key = key_id(hashed)
        detail = {"new": key, "overlap_ms": overlap_ms}
        row = await self._change("rotate_key", who, detail, old, key, hashed, overlap_ms)
        return _key_record(key, row)

    async def revoke_key(self, who: Actor, key: str) -> KeyRecord:
        """Refused: `unknown`."""
        return _key_record(key, await self._change("revoke_key", who, {}, key))

    async def note(self, who: Actor, verb: str, subject: str, detail: dict[str, Any]) -> None:
        """Tell the log of a change made elsewhere."""
        await self._change("note", who, detail, verb, subject)

    # Sessions of the dashboard that were ended early

    async def end_session(self, name: str, expires: int) -> None:
        """Remember it as ended until it would have expired (seconds since 1970)."""

        async def use(redis: Redis) -> None:
            async with redis.pipeline(transaction=False) as pipeline:
                pipeline.zremrangebyscore(_key("ended"), "-inf", time.time())
                pipeline.zadd(_key("ended"), {name: expires})
                pipeline.zremrangebyrank(_key("ended"), 0, -ENDED_SESSIONS - 1)
                await pipeline.execute()

        await self._call(use)

    async def ended_sessions(self) -> list[str]:
        """Their names."""
        names: Any = await self._call(lambda redis: redis.zrange(_key("ended"), 0, -1))
        return list(names)

    async def _change(
        self, verb: str, who: Actor, detail: dict[str, Any], *arguments: str | float
    ) -> dict[str, str]:
        told = orjson.dumps(detail).decode()
        script = _script(verb, who.admin, who.origin, told, *arguments)
        outcome, *record = await self._call(script)
        if outcome != "ok":
            raise RefusedError(outcome)
        line = {"audit": verb, "name": arguments[0], "by": who.admin, "from": who.origin} | detail
        audit_log.info(orjson.dumps(line).decode())
        flat = record[0]
        return dict(zip(flat[::2], flat[1::2], strict=True))

    async def _call(
        self, use: Callable[[Redis], Awaitable[T]], timeout_s: float | None = None
    ) -> T:
        async with self._admin:
            return await self._link.call(use, timeout_s)

    async def _names(self, key: str, after: str, search: str, limit: int) -> Names:
        async def use(redis: Redis) -> Names:
            found: list[str] = []
            last, looked_at = after, 0
            while looked_at < NAMES_LOOKED_AT:
                least = f"({last}" if last else "-"
                some: Any = await redis.zrangebylex(key, least, "+", 0, NAMES_PAGE)
                for name in some:
                    last = name
                    if matches(name, search):
                        found.append(name)
                        if len(found) > limit:
                            return Names(tuple(found), last)
                if len(some) < NAMES_PAGE:
                    return Names(tuple(found))
                looked_at += len(some)
            return Names(tuple(found), last)

        return await self._call(use, LIST_TIMEOUT_S)

    async def _hashes(self, kind: str, names: list[str]) -> dict[str, dict[str, str]]:
        """Those that there are, in that order."""

        async def use(redis: Redis) -> list[dict[str, str]]:
            async with redis.pipeline(transaction=False) as pipeline:
                for name in names:
                    pipeline.hgetall(_key(kind, name))
                return list(await pipeline.execute())

        rows = await self._call(use, LIST_TIMEOUT_S)
        return {name: row for name, row in zip(names, rows, strict=True) if row}


def _script(verb: str, *arguments: str | float) -> Callable[[Redis], Awaitable[Any]]:
    """One EVALSHA (with EVAL when the server does not know the script yet)."""

    async def use(redis: Redis) -> Any:
        return await redis.register_script(script_text(verb))(keys=[PREFIX], args=arguments)

    return use


def _key(kind: str, name: str | None = None) -> str:
    return f"{PREFIX}:{kind}" if name is None else f"{PREFIX}:{kind}:{name}"


def _flag(value: bool) -> str:
    return "1" if value else "0"


def _told(limits: Limits) -> dict[str, Any]:
    """Of limits that are new, in the log."""
    return {"limits": limits.given()} if limits.given() else {}


def _share(path: str, weight: str, limits: str) -> GroupRecord | None:
    return GroupRecord(path, float(weight), limits=limits_of(limits)) if weight else None


def _client(name: str, row: dict[str, str]) -> ClientRecord:
    return ClientRecord(
        name,
        float(row["weight"]),
        row["group"],
        row["enabled"] == "1",
        int(row["created"]),
        limits=limits_of(row.get("limits")),
        priority_class=row.get("class", ""),
    )


def _group(path: str, row: dict[str, str]) -> GroupRecord:
    return GroupRecord(
        path, float(row["weight"]), int(row["created"]), limits=limits_of(row.get("limits"))
    )


def _key_record(key: str, row: dict[str, str]) -> KeyRecord:
    created, expires, revoked = (int(row[name]) for name in ("created", "expires", "revoked"))
    return KeyRecord(key, row["client"], row["label"], created, expires, revoked)


def _event(entry: str, row: dict[str, str]) -> Event:
    """Routers of another version may write entries with other fields; all of them name subjects."""
    verb, subject, key, by, origin = (
        row.get(name, "") for name in ("verb", "subject", "key", "by", "from")
    )
    return Event(entry, verb, subject, key, Actor(by, origin), row.get("detail", "{}"))
