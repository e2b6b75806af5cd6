"""Store servers to be killed, stalled, emptied and failed over: real ones, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from deployments.embedded_store import free_port, server_binary
from loadtests.chaos.children import spawn

HOST = "127.0.0.1"
ANSWER_S = 20.0
MASTER = "fairlane"
SENTINELS = 3
QUORUM = 2
DOWN_AFTER_MS = 2000


class ServerFailedError(Exception):
    """A store server did not do what the scenario needs; the message says which, and its log."""


class StoreServer:
    """One Valkey with an append-only file. It keeps its port, also over restarts."""

    def __init__(
        self, folder: Path, *, replica_of: StoreServer | None = None, host: str = HOST
    ) -> None:
        self.host = host
        self.port = free_port()
        self._folder = folder
        self._replica_of = replica_of
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder.with_suffix(".log")

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://{self.host}:{self.port}/0"

    def client(self) -> Any:
        """A client for looking into it; every call takes at most two seconds."""
        return redis.Redis(
            self.host,
            self.port,
            socket_timeout=2,
            socket_connect_timeout=2,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),
        )

    def start(self, *, empty: bool = False) -> None:
        """Start it, on the data it left, or on none. Does not wait."""
        if empty:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        options: list[str] = ["--bind", self.host, "--port", str(self.port)]
        options += ["--dir", str(self._folder)]
        if self.host != HOST:  # a network of the harness's own (`machines`)
            options += ["--protected-mode", "no"]
        options += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        options += ["--maxmemory-policy", "noeviction"]
        if self._replica_of is not None:
            options += ["--replicaof", HOST, str(self._replica_of.port)]
        self._process = spawn([str(server_binary()), *options], self._log)

    async def ready(self) -> None:
        """Wait until it answers and is done loading. Raises ServerFailedError."""
        deadline = time.monotonic() + ANSWER_S
        while not await asyncio.to_thread(self._answers):
            if time.monotonic() > deadline:
                raise ServerFailedError(f"the store did not answer; see {self._log}")
            await asyncio.sleep(0.02)

    def _answers(self) -> bool:
        with contextlib.closing(self.client()) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it with SIGKILL, if it runs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class SentinelStore:
    """A primary, its replica, and three Sentinels that fail over between them."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        first = StoreServer(folder / "first")
        self._servers = [first, StoreServer(folder / "second", replica_of=first)]
        self._ports = [free_port() for _ in range(SENTINELS)]
        self._sentinels: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        """Where its Sentinels listen, and its name with them."""
        hosts = ",".join(f"{HOST}:{port}" for port in self._ports)
        return f"redis+sentinel://{hosts}/{MASTER}"

    async def start(self) -> None:
        """Start the servers, then their Sentinels, and wait until these know each other."""
        first, second = self._servers
        first.start()
        await first.ready()
        second.start()
        await second.ready()
        await self._wait(lambda: self._linked(second), "the replica did not find its primary")
        for number, port in enumerate(self._ports):
            self._start_sentinel(number, port)
        await self._wait(self._agreed, "the Sentinels did not find each other")

    def _start_sentinel(self, number: int, port: int) -> None:
        config = self._folder / f"sentinel-{number}.conf"
        config.write_text(
            f"bind {HOST}\nport {port}\n"
            f"sentinel monitor {MASTER} {HOST} {self._servers[0].port} {QUORUM}\n"
            f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {MASTER} 10000\n",
            encoding="utf-8",
        )
        command = [str(server_binary()), str(config), "--sentinel"]
        self._sentinels.append(spawn(command, config.with_suffix(".log")))

    @property
    def primary(self) -> StoreServer:
        """Who is the primary by the word of a Sentinel. Raises ServerFailedError."""
        for port in self._ports:
            with contextlib.suppress(redis.RedisError), contextlib.closing(_look(port)) as look:
                told = look.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
                for server in self._servers:
                    if told and int(told[1]) == server.port:
                        return server
        raise ServerFailedError(f"no Sentinel knows the primary; see {self._folder}")

    async def fail_over(self) -> None:
        """Kill the primary, and wait until another server is it."""
        old = await asyncio.to_thread(lambda: self.primary)
        old.kill()
        await self._wait(lambda: self._took_over(old), "the Sentinels did not fail over")

    def stop(self) -> None:
        """End everything."""
        for sentinel in self._sentinels:
            sentinel.kill()
            sentinel.wait()
        for server in self._servers:
            server.kill()

    def _took_over(self, old: StoreServer) -> bool:
        now = self.primary
        if now is old:
            return False
        with contextlib.closing(now.client()) as client:
            return bool(client.role()[0] == "master")

    def _linked(self, server: StoreServer) -> bool:
        with contextlib.closing(server.client()) as client:
            return bool(client.role()[3] == "connected")

    def _agreed(self) -> bool:
        for port in self._ports:
            with contextlib.closing(_look(port)) as look:
                about = look.sentinel_master(MASTER)
            if about["num-other-sentinels"] < SENTINELS - 1 or about["num-slaves"] < 1:
                return False
        return True

    async def _wait(self, condition: Any, complaint: str) -> None:
        deadline = time.monotonic() + 2 * ANSWER_S
        while True:
            with contextlib.suppress(redis.RedisError, ServerFailedError):
                if await asyncio.to_thread(condition):
                    return
            if time.monotonic() > deadline:
                raise ServerFailedError(f"{complaint}; see {self._folder}")
            await asyncio.sleep(0.1)


def _look(port: int) -> Any:
    return redis.Redis(
        HOST, port, socket_timeout=2, socket_connect_timeout=2, decode_responses=True,
        retry=Retry(NoBackoff(), 0),
    )  # fmt: skip
