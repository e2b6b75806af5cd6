"""The embedded store keeps its promises: a real server, real crashes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from deployments import embedded_store
from deployments.embedded_store import (
    EmbeddedStore,
    EmbeddedValkey,
    ServerState,
    StoreFailed,
    StoreInUse,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path / "data") as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    store = EmbeddedStore(str(tmp_path / "data"))
    yield store
    store.stop()


def connect(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, decode_responses=True)


def eventually(holds: Callable[[], bool], within_s: float = 10.0) -> bool:
    deadline = time.monotonic() + within_s
    while not (held := holds()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return held


def alive(process: psutil.Process) -> bool:
    """Say whether the process runs; one that is dead but not yet reaped does not."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def crash(server: EmbeddedValkey) -> int:
    """Kill the server as the kernel would; return the process id it had."""
    pid = server.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


def test_it_answers_under_its_url(server_url: str) -> None:
    client = connect(server_url)
    client.set("service", 17)
    assert client.get("service") == "17"
    assert client.eval("return redis.call('GET', KEYS[1])", 1, "service") == "17"


def test_nobody_gets_in_without_the_password(server: EmbeddedValkey) -> None:
    address = server.url.partition("@")[2]
    with pytest.raises(redis.AuthenticationError):
        connect(f"redis://{address}").ping()
    with pytest.raises(redis.AuthenticationError):
        connect(f"redis://:guess@{address}").ping()


def test_the_password_is_on_no_command_line_and_in_no_file(server: EmbeddedValkey) -> None:
    password = server.url.removeprefix("redis://:").partition("@")[0]
    assert connect(server.url).config_get("requirepass") == {"requirepass": password}
    process = psutil.Process(server.pid)
    assert password not in " ".join([*process.cmdline(), *process.environ().values()])
    for file in server.data_dir.rglob("*"):
        assert file.is_dir() or password.encode() not in file.read_bytes()


def test_it_listens_on_loopback_only(server: EmbeddedValkey) -> None:
    sockets = psutil.Process(server.pid).net_connections()
    assert {one.laddr.ip for one in sockets} == {"127.0.0.1"}


def test_only_its_owner_may_look_into_the_data_folder(server: EmbeddedValkey) -> None:
    assert server.data_dir.stat().st_mode & 0o777 == 0o700


def test_data_written_before_a_crash_is_there_after_it(server: EmbeddedValkey) -> None:
    url = server.url
    connect(url).set("service", 17)
    crash(server)
    assert server.wait(5)
    assert server.pid is None
    assert server.state() is ServerState.DOWN
    server.start()
    assert server.url == url
    assert connect(url).get("service") == "17"


def test_data_outlives_an_orderly_stop(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as first:
        connect(first.url).set("service", 17)
    with EmbeddedValkey(tmp_path) as second:
        assert connect(second.url).get("service") == "17"
        assert second.url != first.url


def test_start_waits_until_a_long_file_is_loaded(server: EmbeddedValkey) -> None:
    connect(server.url).eval(
        "for i = 1, 300000 do redis.call('SET', 'key' .. i, string.rep('x', 100)) end", 0
    )
    crash(server)
    server.wait(5)
    server.start()
    assert connect(server.url).dbsize() == 300_000


def test_start_again_while_it_runs_changes_nothing(server: EmbeddedValkey) -> None:
    pid = server.pid
    server.start()
    assert server.pid == pid


def test_a_stopped_server_is_gone_and_stays_so(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path)
    server.start()
    pid = server.pid
    assert pid is not None
    server.stop()
    server.stop()
    assert not psutil.pid_exists(pid)
    with pytest.raises(StoreFailed, match="make a new one"):
        server.start()


def test_a_second_owner_is_refused(server: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_store, "LOCK_S", 0.2)
    with pytest.raises(StoreInUse, match=f"in use by process {os.getpid()}"):
        EmbeddedValkey(server.data_dir).start()
    assert server.state() is ServerState.READY


def test_a_server_that_can_not_start_says_why(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server:
        connect(server.url).set("service", 17)
    for file in tmp_path.rglob("*.incr.aof"):
        file.write_bytes(b"not what it was\r\n" + file.read_bytes())
    with pytest.raises(StoreFailed, match="Bad file format"):
        EmbeddedValkey(tmp_path).start()


# What an application does, in a process that can be killed: it starts the server from a thread
# that ends at once, and prints the server's process id.
OWNER = """
import sys, threading, time
from deployments.embedded_store import EmbeddedValkey
server = EmbeddedValkey(sys.argv[1])
thread = threading.Thread(target=server.start)
thread.start()
thread.join()
print(server.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """An application and its server, both running."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as application:
        assert application.stdout is not None
        yield application, psutil.Process(int(application.stdout.readline()))
        application.kill()


def test_it_survives_the_thread_that_started_it(
    owner: tuple[subprocess.Popen[str], psutil.Process],
) -> None:
    _, server = owner
    time.sleep(0.5)
    assert alive(server)


def test_it_dies_with_its_application(
    owner: tuple[subprocess.Popen[str], psutil.Process], tmp_path: Path
) -> None:
    application, server = owner
    application.kill()
    assert eventually(lambda: not alive(server), within_s=3)
    with EmbeddedValkey(tmp_path):  # and the data folder is free again
        pass


async def test_the_store_comes_back_after_a_crash(store: EmbeddedStore) -> None:
    url = await store.url()
    connect(url).set("service", 17)
    pid = crash(store._server)
    assert eventually(lambda: store._server.pid not in (None, pid))
    assert eventually(lambda: store._server.state() is ServerState.READY)
    assert await store.url() == url
    assert connect(url).get("service") == "17"
    await store.check_health()


async def test_the_store_comes_back_after_many_crashes(store: EmbeddedStore) -> None:
    for _ in range(3):
        pid = crash(store._server)
        assert eventually(lambda pid=pid: store._server.pid not in (None, pid))
    assert eventually(lambda: store._server.state() is ServerState.READY)


async def test_a_store_that_does_not_answer_is_unwell(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.check_health()
    pid = store._server.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        await store.check_health()  # a short silence is forgiven
        monkeypatch.setattr(embedded_store, "UNHEALTHY_S", 0.0)
        with pytest.raises(StoreFailed, match="has not answered"):
            await store.check_health()
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_store_ends_its_server_when_serve_says_so(tmp_path: Path) -> None:
    store = EmbeddedStore(str(tmp_path))
    pid = store._server.pid
    assert pid is not None
    store.__del__()  # what Serve calls when it shuts a replica down
    assert not psutil.pid_exists(pid)
    store.__del__()  # and the garbage collector once more
