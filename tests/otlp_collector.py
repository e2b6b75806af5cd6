"""A collector of traces: takes OTLP over HTTP and remembers the spans."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """Listens from `collecting` on. `raw`: all bytes that came."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []
        self._spans: list[Any] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1/traces"

    def spans(self) -> list[Any]:
        with self._lock:
            return list(self._spans)

    def until(self, enough: Callable[[list[Any]], bool], timeout_s: float = 60) -> list[Any]:
        """All spans, once they are as `enough` wants them. Blocks."""
        deadline = time.monotonic() + timeout_s
        while not enough(found := self.spans()):
            assert time.monotonic() < deadline, [span.name for span in found]
            time.sleep(0.05)
        return found

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            self.raw.append(body)
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    self._spans += scope.spans

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(body)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.05)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector, for as long as it is wanted."""
    collector = Collector()
    thread = threading.Thread(target=collector.serve, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        collector.close()
        thread.join(5)


def attributes(span: Any) -> dict[str, Any]:
    """A span's attributes, as plain values."""
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes
    }
