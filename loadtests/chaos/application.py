"""The real application: started, its processes found by their names, its state over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from deployments.embedded_store import free_port
from loadtests.chaos.charges import Tokens
from loadtests.chaos.children import spawn
from loadtests.process_cpu import ProcessId, system_processes
from loadtests.system_end import end_system

ROOT = Path(__file__).resolve().parents[2]
ADMIN_KEY = "sk-local-admin"
START_S = 400.0
WHOLE_S = 240.0
ROUTER = "ray::ServeReplica:fairlane:Router"
REPLICA = "ray::ServeReplica:fairlane:Replica:"
ENGINE = "VLLM::EngineCor"


class ApplicationFailedError(Exception):
    """The application did not start, or did not come back; the message says where to look."""


class Application:
    """`fairlane serve` in a session of its own, on a free port."""

    def __init__(self, config: Path, store_url: str, home: Path, log: Path) -> None:
        """Prepare it. home: for its model; log: for its output. Nothing is started yet."""
        self._config = config
        self._store_url = store_url
        self._home = home
        self._log = log
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Start it, wait until it is ready, and end all of it after.

        Raises ApplicationFailedError when it does not start.
        """
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            "FAIRLANE_HOME": str(self._home),
            "REDIS_URL": self._store_url,
            "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
            "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        }
        command = [sys.executable, "-m", "deployments.cli", "serve", str(self._config)]
        self._log.write_bytes(b"")
        self._process = spawn(
            [*command, "--port", str(self._port)], self._log, environment=environment, cwd=ROOT
        )
        try:
            self._wait_until_ready()
            yield
        finally:
            end_system(self._process)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while not self._is_up():
            ended = self._process is not None and self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise ApplicationFailedError(
                    f"the application did not start: {_last_words(self._log)} (see {self._log})"
                )
            time.sleep(0.5)

    def _is_up(self) -> bool:
        return b"Fairlane is ready" in self._log.read_bytes()

    async def oldest(self, name: str) -> ProcessId:
        """The oldest of its processes whose name begins so. Raises ApplicationFailedError."""
        assert self._process is not None
        found = (await asyncio.to_thread(system_processes, self._process.pid)).values()
        named = [process.id for process in found if process.name.startswith(name)]
        if not named:
            raise ApplicationFailedError(f"the application has no process called {name}")
        return min(named, key=lambda key: key.start_ticks)

    def signal(self, key: ProcessId, number: signal.Signals) -> None:
        """Send one of its processes a signal."""
        os.kill(key.pid, number)

    async def whole(self, *, routers: int, replicas: int) -> bool:
        """Wait until so many routers answer, each ready and with so many replicas."""
        deadline = time.monotonic() + WHOLE_S
        while time.monotonic() < deadline:
            if await asyncio.to_thread(self._is_whole, routers, replicas):
                return True
            await asyncio.sleep(1)
        return False

    def _is_whole(self, routers: int, replicas: int) -> bool:
        """Ask repeatedly, each time over a new connection: HAProxy spreads them over routers."""
        looks = range(4 * routers)
        try:
            names = {self._get("/healthz")["router"] for _ in looks}
            seen = {count for _ in looks for count in self._get("/readyz")["replicas"].values()}
        except (httpx.HTTPError, ValueError, KeyError):
            return False
        return len(names) == routers and seen == {replicas}

    def _get(self, path: str) -> Any:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        answer = httpx.get(f"{self.url}{path}", headers=headers, timeout=5)
        answer.raise_for_status()
        return answer.json()

    async def clients(self) -> list[dict[str, Any]]:
        """Ask for the state of all clients. Raises httpx.HTTPError."""
        answer = await asyncio.to_thread(self._get, "/admin/queue/clients")
        return list(answer["clients"])

    async def books(self) -> Books:
        """Ask for what everybody was charged. Raises httpx.HTTPError."""
        usage = await asyncio.to_thread(self._get, "/admin/usage?by=client&limit=1000")
        return Books(charged(await self.clients()), charged(usage["usage"]))


class Books(NamedTuple):
    """Both of the store's accounts of what clients were charged in all: the queue's, and usage by
    the day, which bills are made of."""

    queue: dict[str, Tokens]
    usage: dict[str, Tokens]


def charged(rows: list[dict[str, Any]]) -> dict[str, Tokens]:
    """Return what each client was charged, from the admin API's rows of clients or of usage."""
    return {row["client"]: Tokens(row["input_tokens"], row["output_tokens"]) for row in rows}


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
