"""The admin API on a port of its own, shared by the routers of a machine."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn

from router.admin.guard import Asgi


class QuietServer(uvicorn.Server):
    """uvicorn inside another program: that program handles the signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


class AdminPort:
    """Serves an ASGI application at host:port, beside others that do the same here."""

    def __init__(self, app: Asgi, host: str, port: int) -> None:
        """Raises OSError when the port can't be had."""
        self._listener = listener(host, port)
        self._server = QuietServer(
            uvicorn.Config(
                app,
                interface="asgi3",  # it would guess ASGI 2 of a bound method
                lifespan="off",
                ws="none",
                access_log=False,
                log_level="warning",
            )
        )
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def check(self) -> None:
        """Raises RuntimeError when it serves no more."""
        if self._task.done():
            raise RuntimeError(f"the admin port is not served any more: {self._task}")

    async def stop(self) -> None:
        """Let what is being answered end, then close."""
        self._server.should_exit = True
        await asyncio.wait({self._task})
        self._listener.close()


def listener(host: str, port: int) -> socket.socket:
    """A socket that the kernel lets share its port with those of other routers of ours: each
    connection goes to one of them. Raises OSError."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(family, kind)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        made.close()
        raise OSError(f"the admin port {host}:{port} can't be had: {error}") from error
    return made
