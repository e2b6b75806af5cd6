"""The real application, started once: routers, vLLM on CPU, embedded Valkey, HAProxy."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.otlp_collector import Collector, collecting

ROOT = Path(__file__).parents[2]
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
    home: Path

    @property
    def model(self) -> Path:
        """The tiny model that it serves."""
        return self.home / "models" / "tiny-llama"

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Who starts an application of its own goes first: two at once are too much for one machine,
    and the shared one stays until the end."""
    items.sort(key=lambda item: item.get_closest_marker("own_application") is None)


@contextmanager
def serving(log: Path, home: Path, config: Path | None = None) -> Iterator[App]:
    """`fairlane serve` on a free port and with data of its own."""
    port = free_port()
    metrics_port = free_port()
    environment = os.environ | {
        "FAIRLANE_METRICS_PORT": str(metrics_port),
        "FAIRLANE_HOME": str(home),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    }
    environment.pop("REDIS_URL", None)
    command = [sys.executable, "-m", "deployments.cli", "serve", "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command if config is None else [*command, str(config)],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_S
        while b"Fairlane is ready" not in log.read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the app did not start:\n{log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.5)
        yield App(f"http://127.0.0.1:{port}", process, metrics_port, home)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Takes the application's traces."""
    with collecting() as made:
        yield made


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[App]:
    """The application of local.yaml; all that can be watched is."""
    config = yaml.safe_load((ROOT / "deployments" / "local.yaml").read_text())
    config["applications"][0]["args"] |= {
        "tracing": {"endpoint": collector.url, "sample": 1},
        "logging": {"format": "json", "access": True},
    }
    file = tmp_path_factory.mktemp("config") / "observed.yaml"
    file.write_text(yaml.safe_dump(config))
    log = tmp_path_factory.mktemp("app") / "serve.log"
    with serving(log, tmp_path_factory.mktemp("home"), file) as app:
        yield app
