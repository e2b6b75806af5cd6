"""How the bench steers its processes: a line of JSON to them, a line of JSON back.

A process ends when its standard input does, so none outlives the bench, however that ends.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

STOP_S = 5.0

Handler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class Process:
    """A process of the bench, seen from the outside. A context manager."""

    def __init__(self, module: str, config: dict[str, Any]) -> None:
        """Start `python -m module` with its configuration; it says `{}` when it is ready."""
        self._what = f"{module} ({config.get('name', '')})"
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def send(self, **command: Any) -> None:
        """Give it a command; it answers each in turn."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None

    def receive(self) -> dict[str, Any]:
        """Wait for its next answer. Raises RuntimeError when it has died."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **command: Any) -> dict[str, Any]:
        """Give it a command and wait for the answer."""
        self.send(**command)
        return self.receive()

    def _died(self) -> RuntimeError:
        return RuntimeError(f"{self._what} ended unasked; what it said is above")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it: its input ends; killed if it does not heed that."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdout.close()
        try:
            self._process.stdin.close()
            self._process.wait(STOP_S)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()


async def obey(handle: Handler) -> None:
    """In the process: answer commands until the input ends. First of all, say it is ready."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    answer: dict[str, Any] = {}
    while True:
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        line = await reader.readline()
        if not line:
            return
        answer = await handle(json.loads(line))
