"""The wire between the application and its store: passes, holds, breaks."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from loadtests.chaos.wire import HOST, Proxy


@contextlib.asynccontextmanager
async def wired() -> AsyncIterator[tuple[Proxy, int]]:
    """A server that echoes, behind a proxy."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(100):
                writer.write(data)
                await writer.drain()
        writer.close()

    async with await asyncio.start_server(echo, HOST, 0) as far:
        proxy = Proxy(far.sockets[0].getsockname()[1])
        async with await asyncio.start_server(proxy.serve, HOST, 0) as near:
            yield proxy, near.sockets[0].getsockname()[1]


async def ask(connection, text: bytes) -> bytes:
    reader, writer = connection
    writer.write(text)
    return await asyncio.wait_for(reader.readexactly(len(text)), 2)


async def test_bytes_pass() -> None:
    async with wired() as (_, port):
        connection = await asyncio.open_connection(HOST, port)
        assert await ask(connection, b"hello") == b"hello"
        connection[1].write_eof()
        assert await asyncio.wait_for(connection[0].read(), 2) == b""


async def test_what_is_held_arrives_late() -> None:
    async with wired() as (proxy, port):
        connection = await asyncio.open_connection(HOST, port)
        assert await ask(connection, b"before") == b"before"
        proxy.obey("hold")
        connection[1].write(b"held")
        newcomer = await asyncio.open_connection(HOST, port)
        newcomer[1].write(b"new")
        for reader in (connection[0], newcomer[0]):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.2)
        proxy.obey("pass")
        assert await asyncio.wait_for(connection[0].readexactly(4), 2) == b"held"
        assert await asyncio.wait_for(newcomer[0].readexactly(3), 2) == b"new"
        for _, writer in (connection, newcomer):
            writer.close()


async def test_a_reset_breaks_old_and_new_connections() -> None:
    async with wired() as (proxy, port):
        connection = await asyncio.open_connection(HOST, port)
        assert await ask(connection, b"before") == b"before"
        proxy.obey("reset")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await ask(connection, b"after")
        newcomer = await asyncio.open_connection(HOST, port)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await ask(newcomer, b"new")
        proxy.obey("pass")
        connection = await asyncio.open_connection(HOST, port)
        assert await ask(connection, b"again") == b"again"
        connection[1].close()


async def test_it_knows_its_words() -> None:
    with pytest.raises(ValueError, match="not 'cut'"):
        Proxy(1).obey("cut")
