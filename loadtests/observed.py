"""Fairlane with all that can be watched on, and with none of it: what watching costs.

`make bench-path ARGS="--only plain,watched --rounds 5"` measures both in turn. Watched means: every
request explained as far as the limits of `explain` allow, an access line each, JSON logs, and the
default share of requests traced, vLLM's spans included, to a collector that answers.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

SINK_PORT = 8110
PLAIN: Mapping[str, Any] = {
    "explain": {"keep": 0},
    "logging": {"access": False},
}
WATCHED: Mapping[str, Any] = {
    "explain": {"keep": 1000, "per_second": 1000},
    "logging": {"format": "json", "access": True},
    "tracing": {"endpoint": f"http://127.0.0.1:{SINK_PORT}/v1/traces"},
}


def write_variant(config: Path, changes: Mapping[str, Any], into: Path) -> Path:
    """Write a Serve config file with other `args`; return its path."""
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    content["applications"][0]["args"] |= changes
    into.write_text(yaml.safe_dump(content), encoding="utf-8")
    return into


class _Sink(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        """Take what comes."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@contextmanager
def trace_sink() -> Iterator[None]:
    """A collector that takes all spans and forgets them."""
    server = ThreadingHTTPServer(("127.0.0.1", SINK_PORT), _Sink)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
