"""The directory in real stores: a change holds at every router, also when the store fails."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fairness.store.connection import connect
from fairness.store.link import StoreLink
from fairness.store.settings import Credentials, StoreSettings
from router.clients import Client, Configured, Group, hash_key, key_id
from router.directory.cache import KeyCache
from router.directory.directory import LOOKUPS, Directory
from router.directory.store import PREFIX, VERBS, DirectoryStore, RefusedError, script_text
from tests.integration.directories import (
    WHO,
    a_key_s_life,
    directory,
    eventually,
    everywhere,
    opens,
    until,
)
from tests.integration.servers import Server, cluster, redis_binary, valkey_binary, watched
from tests.integration.test_connections import documented_acl

pytestmark = pytest.mark.integration

CONFIGURED = Configured(
    clients=(Client("fixed", 7.0),), groups=(Group("acme", 3.0),), keys=()
)  # fmt: skip
DAY_MS = 86_400_000


async def client_with_key(store: DirectoryStore, name: str = "alice", key: str = "sk-1") -> str:
    """The id of its key."""
    await store.create_client(WHO, name, 1.0, "", enabled=True, fixed=False)
    return (await store.create_key(WHO, name, hash_key(key), "", 0)).id


async def refusal(change: Awaitable[object]) -> str:
    with pytest.raises(RefusedError) as error:
        await change
    return error.value.reason


# What is written


async def test_every_verb_in_a_key_s_life(server_url: str) -> None:
    async with directory(server_url) as one:
        await a_key_s_life(one.store)


async def test_nothing_of_a_key_is_in_the_store_but_its_hash(server_url: str) -> None:
    async with directory(server_url) as one:
        await client_with_key(one.store, key="sk-fl-secret")
        redis = connect(server_url)
        seen = ""
        async for name in redis.scan_iter("*"):
            assert name.startswith(f"{PREFIX}:")
            kind = await redis.type(name)
            read = {
                "hash": redis.hgetall,
                "zset": lambda name: redis.zrange(name, 0, -1),
                "stream": redis.xrange,
            }[kind]
            seen += f"{name}{await read(name)}"
        await redis.aclose()
    assert hash_key("sk-fl-secret") in seen
    assert "sk-fl-secret" not in seen


async def test_what_is_refused_changes_nothing(server_url: str) -> None:
    async with directory(server_url) as one:
        store = one.store
        key = await client_with_key(store)
        await store.create_group(WHO, "acme", 1.0, "", fixed=False)
        await store.create_group(WHO, "acme/ml", 1.0, "acme", fixed=False)
        await store.create_group(WHO, "acme2", 1.0, "", fixed=False)
        before = await store.log("-")
        new = hash_key("sk-2")
        assert [
            await refusal(
                store.create_client(WHO, "alice", 1, "", enabled=True, fixed=False)
            ),
            await refusal(
                store.create_client(WHO, "bob", 1, "nobody", enabled=True, fixed=False)
            ),
            await refusal(store.change_client(WHO, "bob", weight=2)),
            await refusal(store.change_client(WHO, "alice", weight=2, group="nobody")),
            await refusal(store.remove_client(WHO, "bob")),
            await refusal(store.create_group(WHO, "acme", 1, "", fixed=False)),
            await refusal(store.create_group(WHO, "x/y", 1, "x", fixed=False)),
            await refusal(store.change_group(WHO, "x", 1)),
            await refusal(store.remove_group(WHO, "acme")),
            await refusal(store.remove_group(WHO, "x")),
            await refusal(store.create_key(WHO, "bob", new, "", 0)),
            await refusal(store.create_key(WHO, "alice", hash_key("sk-1"), "", 0)),
            await refusal(store.rotate_key(WHO, "0" * 12, new, 0)),
            await refusal(store.revoke_key(WHO, "0" * 12)),
        ] == [
            *("taken", "no_group", "unknown", "no_group", "unknown"),
            *("taken", "no_organisation", "unknown", "has_members", "unknown"),
            *("unknown", "id_taken", "unknown", "unknown"),
        ]  # fmt: skip
        assert (await store.clients(["alice"]))["alice"].weight == 1
        await store.remove_group(WHO, "acme2")  # whose name begins alike
        await store.revoke_key(WHO, key)
        assert await refusal(store.rotate_key(WHO, key, new, 0)) == "dead"
        await store.revoke_key(WHO, key)  # once more: no change, no entry
        assert len(await store.log("-")) == len(before) + 2


async def test_two_admins_at_once(server_url: str) -> None:
    """Of many who take a name one gets it; a group is never removed under a client's feet."""
    async with directory(server_url) as one, directory(server_url) as other:
        took = await asyncio.gather(
            *(
                admin.store.create_client(WHO, "alice", number, "", enabled=True, fixed=False)
                for number in range(1, 11)
                for admin in (one, other)
            ),
            return_exceptions=True,
        )
        assert sum(not isinstance(outcome, RefusedError) for outcome in took) == 1
        for _ in range(10):
            await one.store.create_group(WHO, "acme", 1.0, "", fixed=False)
            await asyncio.gather(
                one.store.change_client(WHO, "alice", group="acme"),
                other.store.remove_group(WHO, "acme"),
                return_exceptions=True,
            )
            group = (await one.store.clients(["alice"]))["alice"].group
            assert set(await one.store.groups(["acme"])) == ({group} if group else set())
            if group:
                await one.store.change_client(WHO, "alice", group="")
                await one.store.remove_group(WHO, "acme")


async def test_long_dead_keys_make_room_and_a_client_has_no_more_than_so_many(
    server_url: str,
) -> None:
    redis = connect(server_url)
    async with directory(server_url) as one:
        await client_with_key(one.store)
        for number in range(999):
            await one.store.create_key(WHO, "alice", hash_key(f"sk-a{number}"), "", 0)
        more = [hash_key(f"sk-b{number}") for number in range(3)]
        assert await refusal(one.store.create_key(WHO, "alice", more[0], "", 0)) == "too_many_keys"
        now_ms = int(time.time() * 1000)
        for field, key, ended in (("revoked", "sk-1", 31), ("expires", "sk-a1", 31)):
            name = f"{PREFIX}:key:{key_id(hash_key(key))}"
            await redis.hset(name, field, str(now_ms - ended * DAY_MS))
        await one.store.create_key(WHO, "alice", more[0], "", 0)
        await one.store.create_key(WHO, "alice", more[1], "", 0)
        assert await refusal(one.store.create_key(WHO, "alice", more[2], "", 0)) == "too_many_keys"
        assert await one.store.key(key_id(hash_key("sk-1"))) is None
    await redis.aclose()


async def test_lists_come_in_pages(server_url: str) -> None:
    async with directory(server_url) as one:
        names = sorted(f"client-{number:04}" for number in range(1500))
        await asyncio.gather(
            *(
                one.store.create_client(WHO, name, 1, "", enabled=True, fixed=False)
                for name in names
            )
        )
        page = await one.store.client_names("", "", "", 100)
        assert page.names[:100] == tuple(names[:100])
        assert page.reached is not None
        page = await one.store.client_names("client-1399", "9", "", 100)
        assert page.names == tuple(n for n in names if n > "client-1399" and "9" in n[7:])
        assert page.reached is None
        assert (await one.store.client_names("", "T-1499", "", 10)).names == ("client-1499",)


async def test_the_log_is_bounded(server_url: str) -> None:
    redis = connect(server_url)
    async with redis.pipeline(transaction=False) as pipeline:
        for _ in range(10_500):
            pipeline.xadd(f"{PREFIX}:log", {"verb": "of another version"})
        await pipeline.execute()
    async with directory(server_url) as one:
        await client_with_key(one.store)
    assert await redis.xlen(f"{PREFIX}:log") == 10_000
    await redis.aclose()


# What routers know of it


async def test_changes_hold_at_every_router(server_url: str) -> None:
    async with directory(server_url) as one, directory(server_url) as other:
        both, store = [one, other], one.store
        await everywhere(both, "sk-1", "401")
        key = await client_with_key(store)
        await everywhere(both, "sk-1", Client("alice", 1.0))
        await store.change_client(WHO, "alice", weight=2.5)
        await everywhere(both, "sk-1", Client("alice", 2.5))
        await store.create_group(WHO, "acme", 4.0, "", fixed=False)
        await store.create_group(WHO, "acme/ml", 0.3, "acme", fixed=False)
        await store.change_client(WHO, "alice", group="acme/ml")
        groups = (Group("acme", 4.0), Group("acme/ml", 0.3))
        await everywhere(both, "sk-1", Client("alice", 2.5, groups))
        await store.change_group(WHO, "acme", 5.0)
        groups = (Group("acme", 5.0), groups[1])
        await everywhere(both, "sk-1", Client("alice", 2.5, groups))
        await store.change_client(WHO, "alice", group="acme")
        await everywhere(both, "sk-1", Client("alice", 2.5, groups[:1]))
        await store.change_client(WHO, "alice", enabled=False, group="")
        await everywhere(both, "sk-1", "401: the client of this API key is disabled")
        await store.change_client(WHO, "alice", enabled=True)
        alice = Client("alice", 2.5)
        await everywhere(both, "sk-1", alice)
        await store.rotate_key(WHO, key, hash_key("sk-2"), 1500)
        await everywhere(both, "sk-2", alice)
        await everywhere(both, "sk-1", "401: this API key has expired")
        await store.revoke_key(WHO, key_id(hash_key("sk-2")))
        await everywhere(both, "sk-2", "401: this API key was revoked")
        await store.create_key(WHO, "alice", hash_key("sk-3"), "", 0)
        await everywhere(both, "sk-3", alice)
        await store.remove_client(WHO, "alice")
        await everywhere(both, "sk-3", "401: this API key is not known here")


async def test_a_rotated_key_overlaps_with_the_new_one(server_url: str) -> None:
    async with directory(server_url) as one:
        key = await client_with_key(one.store)
        await one.store.rotate_key(WHO, key, hash_key("sk-2"), 3_600_000)
        await everywhere([one], "sk-1", Client("alice"))
        await everywhere([one], "sk-2", Client("alice"))
        hour = time.time() + 3601
        later = Directory(one.store, Configured(), clock=lambda: hour)
        assert await opens(later, "sk-2") == Client("alice")
        assert "expired" in str(await opens(later, "sk-1"))


async def test_the_configuration_goes_first(server_url: str) -> None:
    async with directory(server_url, CONFIGURED) as one, directory(server_url) as other:
        await one.store.create_group(WHO, "acme/ml", 0.5, "acme", fixed=True)
        await one.store.create_client(WHO, "alice", 1.0, "acme/ml", enabled=True, fixed=False)
        await one.store.create_key(WHO, "alice", hash_key("sk-1"), "", 0)
        await client_with_key(one.store, "fixed", "sk-2")
        team = Group("acme/ml", 0.5)
        assert await opens(one, "sk-1") == Client("alice", 1.0, (Group("acme", 3.0), team))
        assert await opens(one, "sk-2") == Client("fixed", 7.0)
        # As after a deployment without them:
        assert await opens(other, "sk-1") == Client("alice", 1.0, (Group("acme", 1.0), team))
        assert await opens(other, "sk-2") == Client("fixed", 1.0)


async def test_a_router_whose_place_in_the_log_is_gone_forgets_all(server_url: str) -> None:
    redis = connect(server_url)
    async with directory(server_url) as one:
        await client_with_key(one.store)
        await everywhere([one], "sk-1", Client("alice"))
        # All at once: a change, and so many that follow that nobody could read it.
        async with redis.pipeline(transaction=True) as pipeline:
            pipeline.hset(f"{PREFIX}:client:alice", "weight", "9.0")
            pipeline.xadd(f"{PREFIX}:log", entry("client:somebody"))
            pipeline.xtrim(f"{PREFIX}:log", maxlen=1, approximate=False)
            await pipeline.execute()
        await everywhere([one], "sk-1", Client("alice", 9.0))
        await redis.flushall()
        await everywhere([one], "sk-1", "401")
    await redis.aclose()


async def test_what_is_remembered_is_bounded_and_costs_no_round_trip(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        store = DirectoryStore(StoreLink(StoreSettings(server.url), PREFIX))
        cache = KeyCache(known=5, unknown=5)
        one = Directory(store, Configured(), cache)
        one.start()
        await client_with_key(store)
        for number in range(20):
            await store.create_key(WHO, "alice", hash_key(f"sk-a{number}"), "", 0)
        await asyncio.gather(*(opens(one, f"sk-a{number}") for number in range(20)))
        await asyncio.gather(*(opens(one, f"stranger-{number}") for number in range(20)))
        assert len(cache) == 10
        await until(lambda: remembered(one, cache, "sk-1"))
        asked = calls(server)
        for _ in range(1000):
            await opens(one, "sk-1")
        assert calls(server) - asked < 100  # the log is read meanwhile
        await one.stop()


async def test_a_flood_of_strange_keys_opens_few_connections(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        async with directory(server.url) as one:
            found = await asyncio.gather(*(opens(one, f"sk-{number}") for number in range(500)))
            assert {str(each)[:3] for each in found} == {"401"}
            assert server.info("stats")["total_connections_received"] < LOOKUPS + 20


# When the store fails


async def test_while_the_store_is_away_known_keys_go_on_working(tmp_path: Path) -> None:
    with Server(tmp_path, ("appendonly yes", "appendfsync always")) as server:
        settings = StoreSettings(server.url, connect_timeout_s=0.5, call_timeout_s=0.5)
        async with directory(settings) as one, directory(settings) as other:
            key = await client_with_key(one.store)
            await one.store.create_key(WHO, "alice", hash_key("sk-2"), "", 0)
            await everywhere([one], "sk-1", Client("alice"))
            await one.store.create_client(WHO, "bob", 1.0, "", enabled=True, fixed=False)
            await everywhere([one], "sk-1", Client("alice"))
            server.kill()
            for _ in range(5):
                assert await opens(one, "sk-1") == Client("alice")
                assert str(await opens(one, "sk-2")).startswith("503")
                assert str(await opens(other, "sk-1")).startswith("503")
            server.start()
            await everywhere([one, other], "sk-2", Client("alice"))
            await eventually(lambda: one.store.revoke_key(WHO, key))
            await everywhere([one, other], "sk-1", "401")


async def test_what_was_changed_while_a_router_was_cut_off_holds_when_it_is_back(
    tmp_path: Path,
) -> None:
    with Server(tmp_path) as server:
        server.ask("ACL SETUSER", "router", "on", ">secret", "~*", "+@all")
        settings = StoreSettings(server.plain_url, Credentials("router", "secret"))
        async with directory(settings) as one, directory(server.url) as admin:
            key = await client_with_key(admin.store)
            await everywhere([one], "sk-1", Client("alice"))
            server.ask("ACL SETUSER", "router", "off")
            server.ask("CLIENT KILL", "USER", "router")
            await until(lambda: starts(one, "sk-9", "503"))
            await admin.store.revoke_key(WHO, key)
            assert await opens(one, "sk-1") == Client("alice")
            server.ask("ACL SETUSER", "router", "on")
            await everywhere([one], "sk-1", "401: this API key was revoked")


async def test_a_failover_loses_no_change_that_its_new_master_has(tmp_path: Path) -> None:
    with watched(tmp_path) as servers:
        source = StoreSettings(servers.url(), connect_timeout_s=0.5, call_timeout_s=1.0)
        async with directory(source) as one, directory(source) as other:
            key = await eventually(lambda: client_with_key(one.store))
            await everywhere([one, other], "sk-1", Client("alice"))
            servers.master.ask("WAIT", 1, 5000)
            servers.master.kill()
            assert await opens(one, "sk-1") == Client("alice")
            await eventually(lambda: one.store.revoke_key(WHO, key))
            await everywhere([one, other], "sk-1", "401")


async def test_a_failover_to_a_server_that_lacks_the_last_changes(tmp_path: Path) -> None:
    """A router that knew them forgets them, too: what the store says holds."""
    with Server(tmp_path) as server:
        async with directory(server.url) as one:
            await client_with_key(one.store)
            await everywhere([one], "sk-1", Client("alice"))
            before = server.ask("XREVRANGE", f"{PREFIX}:log", "+", "-", "COUNT", 1)[0][0]
            await one.store.change_client(WHO, "alice", weight=9.0)
            await everywhere([one], "sk-1", Client("alice", 9.0))
            last = server.ask("XREVRANGE", f"{PREFIX}:log", "+", "-", "COUNT", 1)[0][0]
            assert last != before
            server.ask("HSET", f"{PREFIX}:client:alice", "weight", "1.0")
            server.ask("XDEL", f"{PREFIX}:log", last)
            await everywhere([one], "sk-1", Client("alice"))


async def test_on_a_cluster(tmp_path: Path) -> None:
    with cluster(tmp_path) as nodes:
        async with directory(nodes.url()) as one:
            await a_key_s_life(one.store)
            await client_with_key(one.store)
            await everywhere([one], "sk-1", Client("alice"))
            owner = nodes.owner(PREFIX)
            nodes.move(PREFIX, next(node for node in nodes.nodes if node is not owner))
            await eventually(lambda: one.store.change_client(WHO, "alice", weight=2.0))
            await everywhere([one], "sk-1", Client("alice", 2.0))


@pytest.mark.parametrize("binary", [valkey_binary, redis_binary], ids=["valkey", "redis"])
async def test_the_documented_acl_suffices(tmp_path: Path, binary: Callable[[], Path]) -> None:
    with Server(tmp_path, binary=binary(), password="admin") as server:
        server.ask(*documented_acl())
        source = StoreSettings(server.plain_url, Credentials("fairlane", "hunter2"))
        async with directory(source) as one:
            await a_key_s_life(one.store)
            await client_with_key(one.store)
            await everywhere([one], "sk-1", Client("alice"))
        assert server.ask("ACL LOG") == []


def test_the_documented_acl_allows_each_command_of_the_scripts() -> None:
    for verb in VERBS:
        used = set(re.findall(r"\bcall\('([A-Z]+)'", script_text(verb)))
        assert {f"+{command.lower()}" for command in used} <= set(documented_acl())


async def remembered(one: Directory, cache: KeyCache, key: str) -> bool:
    await opens(one, key)
    return cache.get(hash_key(key)) is not None


async def starts(one: Directory, key: str, status: str) -> bool:
    return str(await opens(one, key)).startswith(status)


def calls(server: Server) -> int:
    return int(server.info("stats")["total_commands_processed"])


def entry(subject: str) -> dict[str, str]:
    fields = dict.fromkeys(("verb", "key", "by", "from"), "x")
    return {**fields, "subject": subject, "detail": "{}"}
