"""What passing a chunk from a replica to a router costs: a trunk beside one HTTP response a stream.

Both ends are in this process, on one event loop and a real connection: the replica's port with an
app in vLLM's place, and the router's reader. In each iteration of the loop every stream says one
chunk, as in an engine step. "http" is the plain way, uvicorn and aiohttp. CPU time of both ends
together, system calls included, divided by chunks; medians over rounds that take turns.

``python -m loadtests.bench_trunk [--streams 64] [--rounds 5]``
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import socket
import statistics
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from typing import Any

import aiohttp
import uvicorn
import uvloop

from replicas.trunk_server import TrunkServer
from router.trunks import Trunks

CHUNK = b'data: {"id":"x","choices":[{"delta":{"content":"tok"}}]}'.ljust(248) + b"\n\n"
CHUNKS = 400

Read = Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]
"""Asks for a stream: its pieces as they come."""
Way = Callable[[], AbstractAsyncContextManager[Read]]


async def speak(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """ASGI: a chunk an iteration of the loop."""
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(CHUNKS):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
        await asyncio.sleep(0)
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def over_trunk() -> AsyncIterator[Read]:
    """Fairlane's way."""
    server, trunks = TrunkServer(speak, lambda token: None), Trunks(secrets.token_bytes)
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    await server.listen(listener)

    @asynccontextmanager
    async def read() -> AsyncIterator[AsyncIterator[bytes]]:
        with closing(await trunks.ask("replica", url, "/", [], b"")) as answer:

            async def pieces() -> AsyncIterator[bytes]:
                while not answer.complete:
                    yield await answer.read()

            yield pieces()

    yield read
    await trunks.close()
    await server.close()


@asynccontextmanager
async def over_http() -> AsyncIterator[Read]:
    """A response of its own for each stream."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    config = uvicorn.Config(speak, lifespan="off", access_log=False, log_level="warning")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        @asynccontextmanager
        async def read() -> AsyncIterator[AsyncIterator[bytes]]:
            async with session.post(url) as answer:
                yield answer.content.iter_any()

        yield read
    server.should_exit = True
    await serving


async def cost(way: Way, streams: int) -> float:
    """CPU microseconds a chunk. Raises RuntimeError when bytes were lost."""

    async def listen(read: Read) -> int:
        async with read() as pieces:
            return sum([len(piece) async for piece in pieces])

    async with way() as read:
        await asyncio.gather(*(listen(read) for _ in range(streams)))  # connections, caches
        began = time.process_time()
        received = sum(await asyncio.gather(*(listen(read) for _ in range(streams))))
        used = time.process_time() - began
    if received != streams * CHUNKS * len(CHUNK):
        raise RuntimeError(f"{received} bytes arrived of {streams * CHUNKS * len(CHUNK)}")
    return 1e6 * used / (streams * CHUNKS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench_trunk", description=__doc__)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    ways = {"trunk": over_trunk, "http": over_http}
    costs: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                costs[name].append(runner.run(cost(way, options.streams)))
    for name, found in costs.items():
        print(
            f"{name:6} {statistics.median(found):6.1f} us a chunk, both ends"
            f" ({min(found):.1f} to {max(found):.1f})"
        )


if __name__ == "__main__":
    main()
