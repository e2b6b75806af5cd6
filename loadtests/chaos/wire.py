"""The wire between the application and its store, which can be cut: a TCP proxy of its own process.

``python -m loadtests.chaos.wire LISTEN TO`` (ports on loopback) obeys words on its standard input:

- ``pass``: bytes go through;
- ``hold``: nothing goes through and nobody is told, as when packets are dropped. What was under way
  arrives late, once it passes again: TCP would send it again;
- ``reset``: every connection breaks, and each new one at once.

It ends when its input does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from deployments.embedded_store import free_port
from loadtests.chaos.children import spawn
from loadtests.chaos.store_servers import ServerFailedError

HOST = "127.0.0.1"
START_S = 20.0
ROOT = Path(__file__).resolve().parents[2]


class Proxy:
    """Connections between one listening port and one server."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._passing = asyncio.Event()
        self._passing.set()
        self._resetting = False
        self._open: set[asyncio.StreamWriter] = set()

    def obey(self, word: str) -> None:
        """Pass, hold or reset. Raises ValueError for another word."""
        if word not in ("pass", "hold", "reset"):
            raise ValueError(f"the wire knows pass, hold and reset, not {word!r}")
        self._resetting = word == "reset"
        if word == "pass":
            self._passing.set()
        elif word == "hold":
            self._passing.clear()
        if self._resetting:
            for writer in list(self._open):
                writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either side ends it."""
        self._open.add(writer)
        try:
            await self._passing.wait()
            if self._resetting:
                return
            try:
                far_reader, far_writer = await asyncio.open_connection(HOST, self._to_port)
            except OSError:
                return  # nobody listens: broken, as it would be without a wire between
            self._open.add(far_writer)
            try:
                async with asyncio.TaskGroup() as both:
                    both.create_task(self._carry(reader, far_writer))
                    both.create_task(self._carry(far_reader, writer))
            finally:
                self._open.discard(far_writer)
                far_writer.transport.abort()
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while True:
                data = await source.read(65536)
                await self._passing.wait()
                if not data:
                    break
                sink.write(data)
                await sink.drain()
        # One side has ended: so does the other, once it has what was under way.
        with contextlib.suppress(OSError):
            sink.close()
            await sink.wait_closed()


async def _main(listen: int, to_port: int) -> None:
    proxy = Proxy(to_port)
    server = await asyncio.start_server(proxy.serve, HOST, listen)
    words = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(words), sys.stdin
    )
    async with server:
        while line := await words.readline():
            proxy.obey(line.decode().strip())


class Wire:
    """A running proxy, and the words for it."""

    def __init__(self, to_port: int, log: Path) -> None:
        """Nothing is started yet. ``log``: for its complaints."""
        self.port = free_port()
        self._to_port = to_port
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The store, by way of this."""
        return f"redis://{HOST}:{self.port}/0"

    def start(self) -> None:
        """Start the proxy and wait until it listens. Raises ServerFailedError."""
        command = [sys.executable, "-m", "loadtests.chaos.wire", str(self.port), str(self._to_port)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self._process = spawn(command, self._log, environment=environment, controlled=True)
        deadline = time.monotonic() + START_S
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServerFailedError(f"the wire to the store did not start; see {self._log}")
            time.sleep(0.05)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def say(self, word: str) -> None:
        """Tell it to ``pass``, ``hold`` or ``reset``."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())
        self._process.stdin.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(int(sys.argv[1]), int(sys.argv[2])))
