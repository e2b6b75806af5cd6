"""Routers' views of a directory in a real store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

from fairness.limits import NO_LIMITS, Limits
from fairness.store.contract import StoreUnavailableError
from fairness.store.locate import StoreSource
from fairness.store.settings import StoreSettings
from router.clients import Client, Configured, hash_key
from router.directory.directory import Directory
from router.directory.records import Actor, ClientRecord, GroupRecord
from router.directory.store import DirectoryStore
from router.errors import ApiError

WHO = Actor("0123456789ab", "127.0.0.1")
NOTHING = Configured()
FEW = Limits(requests_per_minute=60, max_wait_s=2.5)
T = TypeVar("T")


@contextlib.asynccontextmanager
async def directory(
    source: StoreSource, configured: Configured = NOTHING
) -> AsyncIterator[Directory]:
    """One router's, started."""
    made = Directory.open(patient(source), configured)
    made.start()
    try:
        yield made
    finally:
        await made.stop()


def patient(source: StoreSource) -> StoreSource:
    """A URL with time limits that a busy machine keeps, too; settings as they are."""
    if not isinstance(source, str):
        return source
    return StoreSettings(source, connect_timeout_s=10, call_timeout_s=20)


async def opens(directory: Directory, key: str) -> Client | str:
    """The client of a key, or why it opens nothing."""
    try:
        return await directory.client(hash_key(key))
    except ApiError as error:
        return f"{error.status}: {error.message}"


async def until(condition: Callable[[], Awaitable[bool]], timeout_s: float = 20.0) -> None:
    """Return as soon as the condition holds."""
    async with asyncio.timeout(timeout_s):
        while not await condition():
            await asyncio.sleep(0.02)


async def everywhere(directories: list[Directory], key: str, wanted: Client | str) -> None:
    """Return as soon as the key means that to each of them; of refusals, the status does."""

    async def same() -> bool:
        found = [await opens(one, key) for one in directories]
        return all(
            one == wanted if isinstance(one, Client) else one.startswith(str(wanted))
            for one in found
        )

    await until(same)


async def eventually(work: Callable[[], Awaitable[T]], timeout_s: float = 20.0) -> T:
    """The outcome of `work`, tried again while the store is out of reach."""
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                return await work()
            except StoreUnavailableError:
                await asyncio.sleep(0.05)


async def a_key_s_life(store: DirectoryStore) -> None:
    """Every verb and every list once, with what each leaves behind."""
    organisation = await store.create_group(WHO, "acme", 2.0, "", fixed=False)
    team = await store.create_group(WHO, "acme/ml", 0.1, "acme", fixed=False, limits=FEW)
    assert (organisation.weight, team.weight, team.name) == (2.0, 0.1, "acme/ml")
    made = await store.create_client(WHO, "alice", 1.0, "acme/ml", enabled=True, fixed=False)
    assert (made.name, made.group, made.enabled) == ("alice", "acme/ml", True)
    changed = await store.change_client(WHO, "alice", weight=3.0, enabled=False)
    assert (changed.weight, changed.group, changed.enabled) == (3.0, "acme/ml", False)
    await store.change_client(WHO, "alice", enabled=True, limits=FEW)
    key = await store.create_key(WHO, "alice", hash_key("sk-1"), "laptop", 3_600_000)
    assert (key.client, key.label, key.expires - key.created) == ("alice", "laptop", 3_600_000)
    _, owner = await store.find(hash_key("sk-1"))
    assert owner is not None
    assert owner.client == ClientRecord("alice", 3.0, "acme/ml", limits=FEW)
    assert owner.organisation == GroupRecord("acme", 2.0)
    assert owner.team == GroupRecord("acme/ml", 0.1, limits=FEW)
    new = await store.rotate_key(WHO, key.id, hash_key("sk-2"), 1000)
    assert (new.client, new.label, new.expires - new.created) == ("alice", "laptop", 3_600_000)
    assert (await store.revoke_key(WHO, new.id)).revoked
    old = await store.key(key.id)
    assert old is not None
    assert old.expires < key.expires
    assert [one.id for one in await store.keys("alice")] == [key.id, new.id]
    assert (await store.client_names("", "LIC", "acme/ml", 10)).names == ("alice",)
    assert (await store.client_names("", "", "acme", 10)).names == ()
    assert (await store.group_names("", "", 10)).names == ("acme", "acme/ml")
    assert (await store.change_group(WHO, "acme", 5.0)).weight == 5.0
    assert (await store.groups(["acme", "nobody"]))["acme"].weight == 5.0
    assert (await store.groups(["acme/ml"]))["acme/ml"].limits == FEW
    team = await store.change_group(WHO, "acme/ml", limits=NO_LIMITS)
    assert (team.weight, team.limits) == (0.1, NO_LIMITS)
    assert (await store.clients(["alice"]))["alice"].limits == FEW
    await store.note(WHO, "queue.policy", "policy", {"policy": "vtc"})
    await store.remove_client(WHO, "alice")
    assert await store.key(key.id) is None
    await store.remove_group(WHO, "acme/ml")
    await store.remove_group(WHO, "acme")
    events = await store.log("-")
    assert [event.verb for event in reversed(events)] == [
        *("group.create", "group.create", "client.create", "client.change", "client.change"),
        *("key.create", "key.rotate", "key.revoke", "group.change", "group.change"),
        *("queue.policy", "client.remove", "group.remove", "group.remove"),
    ]
    assert {event.actor for event in events} == {WHO}
