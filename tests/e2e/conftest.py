"""The real application, started once: routers, vLLM on CPU, embedded Valkey, HAProxy."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[2]
LOCAL = ROOT / "deployments" / "local.yaml"
START_S = 400
KEYS = {name: f"sk-local-{name}" for name in ("alice", "bob", "carol", "admin")}


def free_port() -> int:
    """A TCP port nobody has now."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class App:
    """The running application."""

    url: str
    process: subprocess.Popen[bytes]
    metrics_port: int

    def get(self, path: str, key: str | None = None) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", headers=bearer(key), timeout=30)

    def post(self, path: str, body: Any, key: str | None = "alice") -> httpx.Response:
        content = {"content": body} if isinstance(body, bytes | str) else {"json": body}
        return httpx.post(f"{self.url}{path}", headers=bearer(key), timeout=120, **content)

    def clients(self) -> dict[str, dict[str, Any]]:
        answer = self.get("/admin/queue/clients", "admin")
        answer.raise_for_status()
        return {row["client"]: row for row in answer.json()["clients"]}

    def usage(self, client: str) -> dict[str, Any]:
        """What a client has used in all, as bills have it."""
        answer = self.get(f"/admin/usage?by=client&client={client}", "admin")
        assert answer.is_success, answer.text
        return next(iter(answer.json()["usage"]), {})

    def idle(self, timeout_s: float = 30) -> dict[str, dict[str, Any]]:
        """All clients, once nothing waits or runs."""
        return self.until(
            lambda rows: not any(row["waiting"] or row["running"] for row in rows.values()),
            timeout_s,
        )

    def until(
        self, condition: Callable[[dict[str, dict[str, Any]]], bool], timeout_s: float
    ) -> dict[str, dict[str, Any]]:
        """All clients, once they are as `condition` wants them."""
        deadline = time.monotonic() + timeout_s
        while not condition(rows := self.clients()):
            assert time.monotonic() < deadline, f"not reached in {timeout_s} s: {rows}"
            time.sleep(0.05)
        return rows


def bearer(key: str | None) -> dict[str, str]:
    """Headers of a client known by its name, or with a key given in full."""
    return {} if key is None else {"Authorization": f"Bearer {KEYS.get(key, key)}"}


@pytest.fixture(scope="session")
def app(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """`fairlane serve` with local.yaml on a free port and data of its own.

    A test may give another configuration (`parametrize(..., indirect=True)`), as a function that
    writes it into a folder. The application before ends first.
    """
    port = free_port()
    config = LOCAL
    if hasattr(request, "param"):
        config = request.param(tmp_path_factory.mktemp("config"))
    log = tmp_path_factory.mktemp("app") / "serve.log"
    metrics_port = free_port()
    environment = os.environ | {
        "FAIRLANE_METRICS_PORT": str(metrics_port),
        "FAIRLANE_HOME": str(tmp_path_factory.mktemp("home")),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    }
    environment.pop("REDIS_URL", None)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "deployments.cli"),
                *("serve", str(config)),
                *("--port", str(port)),
            ],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    app = App(f"http://127.0.0.1:{port}", process, metrics_port)
    try:
        deadline = time.monotonic() + START_S
        while b"Fairlane is ready" not in log.read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the app did not start:\n{log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.5)
        yield app
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
