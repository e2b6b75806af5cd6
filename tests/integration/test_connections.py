"""Connections to real stores: how they get in, how soon they give up, how they find them again."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import re
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

import deployments
from deployments.embedded_store import free_port
from fairness.store.breaker import FAILURES, BreakerOpenError
from fairness.store.connection import SCHEMA
from fairness.store.contract import Call, QueueSettings, Sender, StoreUnavailableError
from fairness.store.credentials import SENTINEL_VARIABLES, STORE_VARIABLES
from fairness.store.link import StoreLink
from fairness.store.locate import (
    GRANT_KEY_VARIABLE,
    LocatedQueue,
    StoreSource,
    grant_key,
    settings_of,
    share_grant_key,
)
from fairness.store.redis_store import script_text
from fairness.store.script_errors import script_failed
from fairness.store.settings import Credentials, StoreSettings, Tls
from tests.integration.certificates import Authority
from tests.integration.servers import (
    HOST,
    Cluster,
    Server,
    black_hole,
    cluster,
    redis_binary,
    valkey_binary,
    watched,
)

pytestmark = pytest.mark.integration

SETTINGS = QueueSettings()
ROUTER = Sender("router", "router-1")
REPLICA = Sender("replica", "replica-1")
SECRET = "hunter2"
DOCS = Path(deployments.__file__).parents[1] / "docs" / "configuration.md"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in (*STORE_VARIABLES, *SENTINEL_VARIABLES, GRANT_KEY_VARIABLE):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(params=[valkey_binary, redis_binary], ids=["valkey", "redis"])
def binary(request: pytest.FixtureRequest) -> Path:
    """The test runs once on Valkey and once on Redis."""
    return request.param()


@contextlib.asynccontextmanager
async def linked(source: StoreSource, pool: str = "tiny") -> AsyncIterator[StoreLink]:
    link = StoreLink(settings_of(source), key_of(pool))
    try:
        yield link
    finally:
        await link.aclose()


@contextlib.asynccontextmanager
async def opened(source: StoreSource, pool: str = "tiny") -> AsyncIterator[LocatedQueue]:
    queue = await LocatedQueue.open(source, pool, SETTINGS)
    try:
        yield queue
    finally:
        await queue.aclose()


def key_of(pool: str) -> str:
    return f"{SCHEMA}:{{{pool}}}"


async def write(link: StoreLink, value: str = "1", pool: str = "tiny") -> str:
    """Set a key of the pool and read it back."""

    async def use(redis: Redis) -> str:
        await redis.set(f"{key_of(pool)}:test", value)
        return str(await redis.get(f"{key_of(pool)}:test"))

    return await link.call(use)


async def refused(source: StoreSource) -> str:
    """Why a call fails; never with the password in it."""
    async with linked(source) as link:
        with pytest.raises(StoreUnavailableError) as error:
            await write(link)
    assert SECRET not in str(error.value)
    return str(error.value)


async def subscriber(server: Server) -> None:
    """Return as soon as somebody listens to the router's grants there."""
    async with asyncio.timeout(3):
        while not server.ask("PUBSUB NUMSUB", f"{key_of('tiny')}:grants:{ROUTER.name}")[-1]:
            await asyncio.sleep(0.01)


async def eventually(link: StoreLink, timeout_s: float = 5.0) -> float:
    """Write until it works, as senders do; seconds that took."""
    began = time.monotonic()
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                assert await write(link, "back") == "back"
            except StoreUnavailableError as error:
                await asyncio.sleep(getattr(error, "retry_in_s", 0.05))
            else:
                return time.monotonic() - began


# How to get in


async def test_a_password(tmp_path: Path, binary: Path) -> None:
    with Server(tmp_path, binary=binary, password=SECRET) as server:
        async with linked(server.url) as link:
            assert await write(link) == "1"
        assert "Authentication required" in await refused(server.plain_url)
        assert "invalid" in await refused(f"redis://:{SECRET}-wrong@{server.address}")
        for credentials in (Credentials(None, SECRET), Credentials("default", SECRET)):
            async with linked(StoreSettings(server.plain_url, credentials)) as link:
                assert await write(link) == "1"


async def test_credentials_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(tmp_path, password=SECRET) as server:
        monkeypatch.setenv("FAIRLANE_STORE_PASSWORD", SECRET)
        async with linked(server.plain_url) as link:
            assert await write(link) == "1"
        # A URL that is complete (the embedded store's) takes nothing from the environment.
        monkeypatch.setenv("FAIRLANE_STORE_USERNAME", "somebody")
        monkeypatch.setenv("FAIRLANE_STORE_PASSWORD", "else")
        async with linked(server.url) as link:
            assert await write(link) == "1"


def documented_acl() -> list[str]:
    """The rule that docs/configuration.md gives."""
    (rule,) = re.findall(r"ACL SETUSER fairlane reset on >PASSWORD ~[^`]*", DOCS.read_text())
    return rule.replace(">PASSWORD", f">{SECRET}").split()


def test_the_documented_acl_allows_each_command_of_the_script() -> None:
    used = set(re.findall(r"\bcall\(\s*['\"]([A-Z]+)['\"]", script_text()))
    assert used
    assert {f"+{command.lower()}" for command in used} <= set(documented_acl())


async def test_the_documented_acl_suffices_and_allows_nothing_else(
    tmp_path: Path, binary: Path
) -> None:
    with Server(tmp_path, binary=binary, password="admin") as server:
        server.ask(*documented_acl())
        source = StoreSettings(server.plain_url, Credentials("fairlane", SECRET))
        async with opened(source) as queue, opened(source) as other:
            stream = queue.granted(ROUTER.name)
            first = asyncio.ensure_future(anext(stream))
            await subscriber(server)
            call = Call()
            call.submit("r1", "alice", 1.0, 100)
            call.heartbeat()
            await queue.execute(ROUTER, call)
            call = Call()
            call.offer("http://replica", 1, 0, 1, 1000)
            call.heartbeat()
            await other.execute(REPLICA, call)
            async with asyncio.timeout(5):
                (grant,) = await first
            assert grant.request == "r1"
            await stream.aclose()
            assert [state.client for state in await queue.clients()] == ["alice"]
        assert len(await grant_key(source)) == 32
        assert server.ask("ACL LOG") == []
        async with linked(source) as link:
            for command in (
                ("GET", "other-application"),
                ("FLUSHALL",),
                ("KEYS", "*"),
                ("CONFIG", "GET", "requirepass"),
                ("PUBLISH", "elsewhere", "x"),
            ):
                with pytest.raises(StoreUnavailableError, match="permission"):
                    await link.call(lambda redis, c=command: redis.execute_command(*c))
                await eventually(link)


async def test_a_rotated_password_file_is_taken_up_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{SECRET}-1\n")
    with Server(tmp_path / "server", password="admin") as server:
        server.ask("ACL SETUSER", "fairlane", "on", f">{SECRET}-1", "~*", "+@all")
        source = StoreSettings(server.plain_url, Credentials("fairlane", None, str(file)))
        async with linked(source) as link:
            assert await write(link) == "1"
            server.ask("ACL SETUSER", "fairlane", f"<{SECRET}-1", f">{SECRET}-2")
            assert await write(link) == "1"  # an open connection stays open
            server.ask("CLIENT KILL", "TYPE", "normal", "SKIPME", "yes")
            with pytest.raises(StoreUnavailableError) as error:  # the file is late
                for _ in range(2):
                    await write(link)
            assert SECRET not in str(error.value)
            file.write_text(f"{SECRET}-2\n")
            assert await eventually(link) < 2


async def test_a_unix_socket(binary: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:  # a socket's path must be short
        path = f"{folder}/store.sock"
        with Server(Path(folder), (f"unixsocket {path}",), binary=binary, password=SECRET):
            async with linked(f"unix://:{SECRET}@{path}") as link:
                assert await write(link) == "1"
            async with linked(
                StoreSettings(f"unix://{path}?db=1", Credentials(None, SECRET))
            ) as it:
                assert await write(it) == "1"
        assert path in await refused(f"unix://:{SECRET}@{path}")


# TLS


@dataclasses.dataclass
class TlsServer:
    address: str
    ours: Authority
    folder: Path


def tls_lines(port: int, authority: Authority, name: str, *, ask: bool) -> tuple[str, ...]:
    own = authority.issue(name)
    return (
        "port 0",
        f"tls-port {port}",
        f'tls-cert-file "{own.cert_file}"',
        f'tls-key-file "{own.key_file}"',
        f'tls-ca-cert-file "{authority.ca_file}"',
        f"tls-auth-clients {'yes' if ask else 'no'}",
    )


@contextlib.contextmanager
def over_tls(folder: Path, name: str, *, ask: bool = False) -> Iterator[TlsServer]:
    """A server with a certificate for `name`; ask: it wants one from its clients."""
    authority = Authority(folder / "authority")
    port = free_port()
    lines = tls_lines(port, authority, name, ask=ask)
    with Server(folder / "server", lines, binary=redis_binary(), port=port) as server:
        yield TlsServer(server.address, authority, folder)


async def test_tls_trusts_only_the_right_authority(tmp_path: Path) -> None:
    with over_tls(tmp_path, HOST) as server:
        url = f"rediss://{server.address}"
        async with linked(StoreSettings(url, tls=Tls(server.ours.ca_file))) as link:
            assert await write(link) == "1"
        assert "certificate verify failed" in await refused(url)
        other = Authority(tmp_path / "impostor")
        wrong = StoreSettings(url, tls=Tls(other.ca_file))
        assert "certificate verify failed" in await refused(wrong)
        assert await refused(f"redis://:{SECRET}@{server.address}")  # in the clear: hung up on
        missing = StoreSettings(url, tls=Tls(f"{tmp_path}/absent.pem"))
        assert "No such file" in await refused(missing)


async def test_tls_verifies_the_host_name(tmp_path: Path) -> None:
    with over_tls(tmp_path, "store.example") as server:
        wrong = StoreSettings(f"rediss://{server.address}", tls=Tls(server.ours.ca_file))
        assert "mismatch" in await refused(wrong)


async def test_tls_with_a_certificate_of_ours(tmp_path: Path) -> None:
    with over_tls(tmp_path, HOST, ask=True) as server:
        url = f"rediss://{server.address}"
        ours = server.ours.issue("router.example")
        mutual = Tls(server.ours.ca_file, ours.cert_file, ours.key_file)
        async with linked(StoreSettings(url, tls=mutual)) as link:
            assert await write(link) == "1"
        assert await refused(StoreSettings(url, tls=Tls(server.ours.ca_file)))


# When it does not answer


async def test_a_frozen_store_costs_at_most_the_time_limit_and_then_nothing(
    tmp_path: Path, binary: Path
) -> None:
    with Server(tmp_path, binary=binary) as server:
        source = StoreSettings(server.url, connect_timeout_s=0.2, call_timeout_s=0.3)
        async with linked(source) as link:
            await write(link)
            with server.frozen():
                for _ in range(FAILURES):
                    began = time.monotonic()
                    with pytest.raises(StoreUnavailableError, match=r"did not answer|no answer"):
                        await write(link)
                    assert time.monotonic() - began < 0.8
                began = time.monotonic()
                with pytest.raises(BreakerOpenError) as error:
                    await write(link)
                assert time.monotonic() - began < 0.2
                assert 0 < error.value.retry_in_s <= 1
                # One caller at a time tries it, the others are told at once.
                await asyncio.sleep(error.value.retry_in_s)
                probe, *others = await asyncio.gather(
                    *(write(link) for _ in range(5)), return_exceptions=True
                )
                assert not isinstance(probe, BreakerOpenError)
                assert all(isinstance(other, BreakerOpenError) for other in others)
            assert await eventually(link) < 1.5


async def test_a_port_that_swallows_packets_costs_the_connect_limit() -> None:
    with black_hole() as address:
        began = time.monotonic()
        assert address in await refused(
            StoreSettings(f"redis://:{SECRET}@{address}", connect_timeout_s=0.2)
        )
        assert time.monotonic() - began < 1


async def test_a_store_that_comes_later(tmp_path: Path) -> None:
    server = Server(tmp_path)
    async with opened(server.url) as queue:
        call = Call()
        call.heartbeat()
        for _ in range(5):
            with pytest.raises(StoreUnavailableError):
                await queue.execute(ROUTER, call)
        key = asyncio.create_task(grant_key(server.url))
        await asyncio.sleep(0.3)
        with server:
            assert len(await key) == 32
            await asyncio.sleep(1)  # the longest pause
            await queue.execute(ROUTER, call)


async def test_a_cancelled_call_leaves_a_clean_connection(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        async with linked(server.url) as link:
            await write(link, "mine")
            for delay in (0.0, 0.0005, 0.001, 0.05):
                task = asyncio.create_task(link.call(lambda redis: redis.blpop("nothing", 1)))
                await asyncio.sleep(delay)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                assert await write(link, str(delay)) == str(delay)


async def test_what_a_script_s_error_means(tmp_path: Path, binary: Path) -> None:
    with Server(tmp_path, binary=binary) as server:
        server.ask("ACL SETUSER", "weak", "on", f">{SECRET}", "~*", "+eval", "+get", "+auth")
        write_script = "return redis.call('SET', 'k', 'v')"

        async def failing(url: str, script: str, *arguments: str) -> Exception:
            async with linked(url) as link:
                with pytest.raises(StoreUnavailableError) as error:
                    await link.call(lambda redis: redis.eval(script, 0, *arguments))
            assert isinstance(error.value.__cause__, Exception)
            return error.value.__cause__

        for script in (
            "return nil + 1",
            "error('unknown verb')",
            "return redis.call('ZADD', 'z', 'much', 'x')",
            "redis.call('SET', 'k', 'v') return redis.call('ZADD', 'k', 1, 'x')",
        ):
            assert script_failed(await failing(server.url, script)), script
        weak = f"redis://weak:{SECRET}@{server.address}"
        assert not script_failed(await failing(weak, write_script))
        server.ask("CONFIG SET", "maxmemory", 1)
        assert not script_failed(await failing(server.url, write_script))
        server.ask("CONFIG SET", "maxmemory", 0)
        server.ask("CONFIG SET", "min-replicas-to-write", 1)
        assert not script_failed(await failing(server.url, write_script))
        server.ask("CONFIG SET", "min-replicas-to-write", 0)
        server.ask("REPLICAOF", HOST, free_port())
        assert not script_failed(await failing(server.url, write_script))


# Finding it again


class Keeper:
    """What a handle of the embedded store's deployment is."""

    def __init__(self, url: str) -> None:
        self.now = url

    @property
    def url(self) -> Any:
        return self

    async def remote(self) -> str:
        return self.now


async def test_an_embedded_store_that_comes_back_elsewhere(tmp_path: Path) -> None:
    with Server(tmp_path / "old", password="old") as old:
        keeper = Keeper(old.url)
        async with linked(keeper) as link:
            await write(link)
            old.kill()
            with Server(tmp_path / "new", password="new") as new:
                keeper.now = new.url
                assert await eventually(link) < 2
                assert new.ask("GET", f"{key_of('tiny')}:test") == "back"


async def subscribed(queue: LocatedQueue, server: Server) -> asyncio.Task[Any]:
    """A task that waits for a grant, once the server knows of it."""
    task = asyncio.ensure_future(anext(queue.granted(ROUTER.name)))
    await subscriber(server)
    return task


async def execute(queue: LocatedQueue, timeout_s: float = 5.0) -> None:
    """One heartbeat, tried until it works."""
    call = Call()
    call.heartbeat()
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                await queue.execute(ROUTER, call)
            except StoreUnavailableError as error:
                await asyncio.sleep(getattr(error, "retry_in_s", 0.05))
            else:
                return


async def test_a_failover_by_sentinels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watched(tmp_path, password=SECRET, sentinel_password="spy") as trio:
        source = StoreSettings(
            trio.url(f":{SECRET}@"), sentinel_credentials=Credentials(None, "spy")
        )
        async with opened(source) as queue, linked(source) as link:
            await execute(queue)
            listening = await subscribed(queue, trio.master)
            trio.master.kill()
            await execute(queue, 8)
            assert trio.replica.info("replication")["role"] == "master"
            assert await eventually(link) < 2
            assert trio.replica.ask("GET", f"{key_of('tiny')}:test") == "back"
            with pytest.raises(StoreUnavailableError):
                await asyncio.wait_for(listening, 1)
            (await subscribed(queue, trio.replica)).cancel()
        assert f"has moved from {trio.master.address} to {trio.replica.address}" in caplog.text
        assert SECRET not in caplog.text and "spy" not in caplog.text

        no_password = dataclasses.replace(source, sentinel_credentials=Credentials())
        assert "Authentication required" in await refused(no_password)
        monkeypatch.setenv("FAIRLANE_SENTINEL_PASSWORD", "spy")
        async with linked(no_password) as link:
            assert await eventually(link) < 2
        unknown = dataclasses.replace(source, url=f"redis+sentinel://{trio.sentinels[0].address}/x")
        assert "living master x" in await refused(unknown)


async def test_a_master_that_becomes_a_replica_is_left(tmp_path: Path) -> None:
    with (
        Server(tmp_path / "old") as old,
        Server(tmp_path / "new") as new,
    ):
        keeper = Keeper(old.url)
        async with opened(keeper) as queue:
            await execute(queue)
            listening = await subscribed(queue, old)
            keeper.now = new.url
            old.ask("REPLICAOF", HOST, new.port)  # it lives, and keeps its connections
            call = Call()
            call.heartbeat()
            with pytest.raises(StoreUnavailableError, match="read only"):
                await queue.execute(ROUTER, call)
            with pytest.raises(StoreUnavailableError):
                await asyncio.wait_for(listening, 1)
            await execute(queue)
            (await subscribed(queue, new)).cancel()


def pools_apart(nodes: Cluster) -> tuple[str, str]:
    """Names of two pools that live on different nodes."""
    names = [f"pool-{number}" for number in range(20)]
    home = nodes.owner(key_of(names[0]))
    return names[0], next(name for name in names if nodes.owner(key_of(name)) is not home)


async def test_a_cluster(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with cluster(tmp_path, password=SECRET) as nodes:
        here, there = pools_apart(nodes)
        url = nodes.url(f":{SECRET}@")
        async with linked(url, here) as one, linked(url, there) as two, opened(url, here) as queue:
            for link, pool in ((one, here), (two, there)):
                assert await write(link, pool, pool) == pool
                assert nodes.owner(key_of(pool)).ask("GET", f"{key_of(pool)}:test") == pool
            assert await grant_key(url) == await grant_key(url)  # on a slot of its own

            # The slot moves; those who knew where it was are told so, and look for it again.
            await execute(queue)
            old, new = nodes.owner(key_of(here)), nodes.owner(key_of(there))
            listening = asyncio.ensure_future(anext(queue.granted(ROUTER.name)))
            await asyncio.sleep(0.1)
            nodes.move(key_of(here), new)
            with pytest.raises(StoreUnavailableError):
                await write(one, "lost", here)
            await execute(queue)
            with pytest.raises(StoreUnavailableError):
                await asyncio.wait_for(listening, 1)
            assert f"has moved from {old.address} to {new.address}" in caplog.text

            # Seeds that are dead or deaf are passed over.
            with black_hole() as deaf:
                seeds = f"redis+cluster://:{SECRET}@{deaf},{HOST}:{free_port()},{new.address}"
                async with linked(StoreSettings(seeds, connect_timeout_s=0.2), here) as link:
                    assert await write(link, "2", here) == "2"
                    assert new.ask("GET", f"{key_of(here)}:test") == "2"
        assert SECRET not in caplog.text


# The shared key


async def test_the_grant_key_survives_a_store_that_forgets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Server(tmp_path) as server:
        key = await grant_key(server.url)
        assert await grant_key(server.url) == key
        server.ask("FLUSHALL")
        assert await share_grant_key(server.url, key) == key
        assert await grant_key(server.url) == key
        assert await share_grant_key(server.url, b"late") == key  # the first one stays
        monkeypatch.setenv(GRANT_KEY_VARIABLE, "given")
        server.ask("FLUSHALL")
        assert await share_grant_key(server.url, b"given") == b"given"
        assert server.ask("DBSIZE") == 0  # what the environment names is not published


async def test_nothing_about_a_failure_shows_a_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    port = free_port()
    for scheme, rest in (("redis", ""), ("rediss", ""), ("redis+sentinel", "/x")):
        assert str(port) in await refused(f"{scheme}://u:{SECRET}@{HOST}:{port}{rest}")
    assert await refused(f"redis+cluster://u:{SECRET}@{HOST}:{port}")
    assert SECRET not in caplog.text
