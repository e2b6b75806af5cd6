"""Both ends of a trunk on a real connection, with the grant check and a played app."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from fairness.grant_token import HEADER, GrantToken
from fairness.store import stand_in
from fairness.trunk.frames import MAX_PAYLOAD, FrameReader, Kind, header, write_head
from fairness.trunk.stream import StreamBrokenError
from fairness.trunk.window import DOWNLOAD, UPLOAD
from router.stand_in import asking
from router.trunks import Answer, Headers, Trunks
from tests.integration.trunk_replica import KEY, Request, TrunkReplica, running

pytestmark = pytest.mark.integration

NUMBERS = itertools.count(1)
MIB = 2**20


@pytest_asyncio.fixture
async def trunks() -> AsyncIterator[Trunks]:
    trunks = Trunks(lambda: KEY)
    yield trunks
    await trunks.close()


def granted(replica: TrunkReplica) -> Headers:
    expires = time.time() + 60
    token = GrantToken(f"lease-{next(NUMBERS)}", "alice", replica.name, expires)
    return [(HEADER, token.encode(KEY)), ("x-request-id", "one")]


async def ask(trunks: Trunks, replica: TrunkReplica, body: bytes = b"") -> Answer:
    async with asyncio.timeout(10):
        headers = granted(replica)
        return await trunks.ask(replica.name, replica.url, "/v1/completions", headers, body)


async def echo(request: Request) -> None:
    await request.start("application/json", 201, **{"retry-after": "7"})
    await request.write(request.body, more=False)


async def until_left(request: Request) -> None:
    await request.start()
    await request.write(b"data: one\n\n")
    await request.left()


async def test_request_and_answer_pass_as_they_are(trunks: Trunks) -> None:
    seen: list[Request] = []

    async def app(request: Request) -> None:
        seen.append(request)
        await echo(request)

    async with running("r", app) as replica:
        answer = await ask(trunks, replica, b"hello")
        assert (answer.status, await answer.rest()) == (201, b"hello")
    (request,) = seen
    assert ("retry-after", "7") in answer.headers
    assert (request.path, request.headers["x-request-id"]) == ("/v1/completions", "one")
    assert request.lease is not None
    assert request.lease.token.client == "alice"


@pytest.mark.parametrize("size", [0, 1, MAX_PAYLOAD, UPLOAD, UPLOAD + 1, 8 * MIB])
async def test_bodies_of_any_size_arrive_whole_both_ways(trunks: Trunks, size: int) -> None:
    body = bytes(itertools.islice(itertools.cycle(range(251)), size))
    async with running("r", echo) as replica:
        answer = await ask(trunks, replica, body)
        assert await answer.rest() == body


async def test_all_streams_share_one_connection_and_a_large_upload_lets_others_pass(
    trunks: Trunks,
) -> None:
    async def app(request: Request) -> None:
        await request.answer(str(len(request.body)).encode())

    async with running("r", app) as replica:
        large = asyncio.create_task(ask(trunks, replica, b"x" * (8 * MIB)))
        small = [asyncio.create_task(ask(trunks, replica, b"y")) for _ in range(50)]
        for task in small:
            assert await (await task).rest() == b"1"
        assert await (await large).rest() == str(8 * MIB).encode()
        assert len(replica.port._trunks) == 1


async def test_a_stranger_is_told_so_in_http(trunks: Trunks) -> None:
    async with running("r", echo) as replica:
        reader, writer = await asyncio.open_connection(*replica._address)
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n\r\n")
        reply = await asyncio.wait_for(reader.read(), 10)
        assert reply.startswith(b"HTTP/1.1 403 ")
        writer.close()
        assert not replica.leases.tokens


@pytest.mark.parametrize(
    ("client", "lease", "replica_name", "ttl_s", "key"),
    [
        ("", "", "r", 60, b"another key"),
        ("", "", "another", 60, KEY),
        ("", "", "r", -1, KEY),
        ("alice", "", "r", 60, KEY),  # a client's pass
        ("alice", "lease", "r", 60, KEY),
    ],
)
async def test_only_a_routers_token_opens_a_connection(
    client: str, lease: str, replica_name: str, ttl_s: float, key: bytes
) -> None:
    hello = GrantToken(lease, client, replica_name, time.time() + ttl_s).encode(key).encode()
    async with running("r", echo) as replica:
        frames = await spoken(replica, header(Kind.HELLO, 0, len(hello)) + hello)
    assert [kind for kind, _, _ in frames] == [Kind.BYE]
    assert not replica.leases.tokens


async def test_nothing_is_served_before_a_hello() -> None:
    async with running("r", echo) as replica:
        head = write_head("/v1/completions", granted(replica))
        reader, writer = await asyncio.open_connection(*replica._address)
        writer.write(header(Kind.OPEN, 1, len(head)) + head)
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 403 ")
        writer.close()
        assert not replica.leases.tokens


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\xff" * 13,
        header(Kind.OPEN, 1, 3) + b"[1]",
        header(Kind.HEAD, 1, 0),
        header(Kind.DATA, 1, MAX_PAYLOAD + 1),
    ],
)
async def test_nonsense_of_a_router_ends_its_connection(nonsense: bytes) -> None:
    hello = GrantToken("", "", "r", time.time() + 60).encode(KEY).encode()
    async with running("r", echo) as replica:
        frames = await spoken(replica, header(Kind.HELLO, 0, len(hello)) + hello + nonsense)
    assert frames == []


async def test_more_bytes_than_the_window_end_the_connection() -> None:
    hello = GrantToken("", "", "r", time.time() + 60).encode(KEY).encode()

    async def never_reads(scope: object, receive: object, send: object) -> None:
        await asyncio.Event().wait()

    async with running("r", echo) as replica:
        replica.port._app = never_reads
        head = write_head("/v1/completions", granted(replica))
        body = header(Kind.DATA, 1, MAX_PAYLOAD) + b"x" * MAX_PAYLOAD
        frames = await spoken(
            replica,
            header(Kind.HELLO, 0, len(hello)) + hello,
            header(Kind.OPEN, 1, len(head)) + head,
            *[body] * (UPLOAD // MAX_PAYLOAD + 1),
        )
        assert frames == []
        for task in replica.port._exchanges:
            task.cancel()


async def spoken(replica: TrunkReplica, *frames: bytes) -> list[tuple[int, int, bytes]]:
    """All that the replica says to these frames until it hangs up."""
    reader, writer = await asyncio.open_connection(*replica._address)
    writer.write(b"".join(frames))
    data = b""
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionResetError):  # the other way to hang up
            while piece := await reader.read(2**16):
                data += piece
    writer.close()
    return list(FrameReader().feed(data))


async def test_a_grant_is_good_for_one_stream(trunks: Trunks) -> None:
    async with running("r", echo) as replica:
        headers = granted(replica)
        for status in (201, 403):
            answer = await trunks.ask("r", replica.url, "/v1/completions", headers, b"")
            assert (answer.status, bool(await answer.rest())) == (status, status == 403)
        answer = await trunks.ask("r", replica.url, "/v1/completions", [], b"")
        assert answer.status == 403


async def test_a_router_without_the_store_asks_over_the_trunk(trunks: Trunks) -> None:
    async with running("r", echo) as replica:
        ask_replica = asking(trunks, lambda: KEY)
        answer = await ask_replica("r", replica.url, stand_in.Question("router-1"))
        assert (answer.room, answer.longest) == (1, 4096)
        pass_of_a_client = GrantToken("", "alice", "r", time.time() + 60).encode(KEY)
        headers = [(HEADER, pass_of_a_client)]
        refused = await trunks.ask("r", replica.url, stand_in.PATH, headers, b"{}")
        assert refused.status == 403


async def test_the_app_hears_that_its_client_has_left(trunks: Trunks) -> None:
    async with running("r", until_left) as replica:
        answer = await ask(trunks, replica)
        assert await answer.read() == b"data: one\n\n"
        assert replica.leases.open_now
        answer.close()
        await replica.leases.all_closed()


async def test_a_request_cancelled_before_its_answer_is_left(trunks: Trunks) -> None:
    async def silent(request: Request) -> None:
        await request.left()

    async with running("r", silent) as replica:
        asking = asyncio.create_task(ask(trunks, replica))
        while not replica.leases.open_now:
            await asyncio.sleep(0)
        asking.cancel()
        await replica.leases.all_closed()


async def test_a_fault_of_the_app_is_500_before_and_a_break_after_it_began(trunks: Trunks) -> None:
    async def faulty(request: Request) -> None:
        if request.body:
            await request.start()
            await request.write(b"data: one\n\n")
        raise RuntimeError("played")

    async with running("r", faulty) as replica:
        answer = await ask(trunks, replica)
        assert (answer.status, await answer.rest()) == (500, b"Internal Server Error")
        answer = await ask(trunks, replica, b"later")
        with pytest.raises(StreamBrokenError):
            await answer.rest()
        assert await (await ask(trunks, replica)).rest()  # the connection goes on


async def test_a_lost_connection_breaks_its_streams_and_is_made_anew(trunks: Trunks) -> None:
    async with running("r", until_left) as replica:
        answers = [await ask(trunks, replica) for _ in range(20)]
        for answer in answers:
            await answer.read()
        await replica.stop()
        for answer in answers:
            with pytest.raises(StreamBrokenError):
                await answer.read()
            answer.close()
        await replica.leases.all_closed()
        with pytest.raises(OSError):
            await ask(trunks, replica)
        replica.handler = echo
        await replica.start()
        assert await (await ask(trunks, replica, b"again")).rest() == b"again"


async def test_who_does_not_say_who_he_is_does_not_stay() -> None:
    async with running("r", echo) as replica:
        reader, writer = await asyncio.open_connection(*replica._address)
        writer.write(header(Kind.HELLO, 0, 100))
        async with asyncio.timeout(10):
            while not replica.port._trunks:
                await asyncio.sleep(0)
            (stranger,) = replica.port._trunks
            stranger.beat()
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()


async def test_a_slow_reader_stops_its_own_stream_and_no_other(trunks: Trunks) -> None:
    made: dict[str, int] = {"slow": 0, "fast": 0}

    async def produce(request: Request) -> None:
        await request.start()
        who, size = request.body.decode(), 4 * MIB
        for _ in range(0, size, 1024):
            await request.write(b"x" * 1024)
            made[who] += 1024
        await request.write(b"", more=False)

    async with running("r", produce) as replica:
        slow = await ask(trunks, replica, b"slow")
        fast = await ask(trunks, replica, b"fast")
        assert len(await fast.rest()) == 4 * MIB
        # The fast one went through to its end; the slow one may have filled its window meanwhile.
        assert made["slow"] <= DOWNLOAD
        held = sum(map(len, slow._stream._chunks))
        assert held <= DOWNLOAD
        read = await slow.read()
        assert len(read) == held == DOWNLOAD
        assert made["slow"] <= DOWNLOAD  # read, not passed on yet
        assert len(await slow.rest()) == 4 * MIB - len(read)


async def test_closing_the_router_ends_the_apps_work() -> None:
    trunks = Trunks(lambda: KEY)
    async with running("r", until_left) as replica:
        answer = await ask(trunks, replica)
        await answer.read()
        await trunks.close()
        with pytest.raises(StreamBrokenError):
            await answer.read()
        await replica.leases.all_closed()


async def test_too_many_streams_are_refused(
    trunks: Trunks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("replicas.trunk_server.MAX_STREAMS", 2)
    async with running("r", until_left) as replica:
        answers = [await ask(trunks, replica) for _ in range(2)]
        with pytest.raises(StreamBrokenError, match="too many"):
            await ask(trunks, replica)
        answers[0].close()
        assert (await ask(trunks, replica)).status == 200
