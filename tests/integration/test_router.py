"""The router with a real store, and with replicas that behave as badly as replicas can.

The replica here is a small HTTP server that offers credits through the real queue; what it answers
is the scenario's choice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio
from aiohttp import web
from openai import AsyncOpenAI, RateLimitError
from redis.asyncio import Redis

from fairness.grant_token import HEADER, GrantToken
from fairness.store.connection import connect
from fairness.store.contract import Call, QueueSettings, Sender, Usage
from fairness.store.locate import LocatedQueue
from fairness.store.redis_store import RedisQueue
from router.app import Limits, RouterApp
from router.clients import Client, Clients, hash_key
from router.relay import BrokenAnswerError, open_session
from router.turns import QueueLimits, Turns

pytestmark = pytest.mark.integration

KEY = b"k" * 32
SILENCE_S = 2.0
SETTINGS = QueueSettings(sender_ttl_ms=4000)
CHAT = {"model": "tiny", "messages": []}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Replica:
    """An HTTP server that offers credits and settles what it was granted."""

    def __init__(self, redis: Redis, name: str, handler: Handler) -> None:
        self.sender = Sender("replica", name)
        self.tokens: list[GrantToken] = []
        self.headers: list[dict[str, str]] = []
        self._queue = RedisQueue(redis, "tiny", SETTINGS)
        self._handler = handler
        self._version = 0
        self.url = ""

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def offer(self, limit: int) -> None:
        self._version += 1
        call = Call()
        call.offer(self.url, limit, 0, self._version, 4096)
        await self._queue.execute(self.sender, call)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.headers.append({k.lower(): v for k, v in request.headers.items()})
        token = GrantToken.decode(request.headers[HEADER], KEY, self.sender.name, now=0)
        self.tokens.append(token)
        try:
            return await self._handler(request)
        finally:
            call = Call()
            call.settle(token.lease, Usage(1, 0, 1))
            await self._queue.execute(self.sender, call)


async def fine(request: web.Request) -> web.StreamResponse:
    return web.json_response({"id": "answer"})


async def breaks_in_the_stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b"data: one\n\n")
    assert request.transport is not None
    request.transport.abort()
    return response


async def breaks_in_the_json(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.content_length = 100
    await response.prepare(request)
    await response.write(b'{"id":')
    assert request.transport is not None
    request.transport.abort()
    return response


async def hangs(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


class Setup:
    """A router on a fresh store."""

    def __init__(self, redis: Redis, turns: Turns, app: RouterApp) -> None:
        self.redis = redis
        self.turns = turns
        self.app = app
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://router",
            headers={"Authorization": "Bearer sk-1"},
        )

    async def ask(self, **options: Any) -> httpx.Response:
        return await self.http.post("/v1/chat/completions", json=CHAT, **options)

    async def seen(self, replicas: int) -> None:
        """Wait until the router knows that many replicas."""
        async with asyncio.timeout(5):
            while len(self.turns.replicas) < replicas:
                await asyncio.sleep(0.01)

    async def alice(self) -> tuple[int, int]:
        """(waiting, running)"""
        for state in await self.turns.clients():
            return state.waiting, state.running
        return 0, 0


@pytest_asyncio.fixture
async def setup(server_url: str) -> AsyncIterator[Setup]:
    redis = connect(server_url)
    queue = await LocatedQueue.open(server_url, "tiny", SETTINGS)
    turns = Turns("router-1", queue, QueueLimits(requests_per_client=3), SETTINGS)
    clients = Clients([(hash_key("sk-1"), Client("alice", 2.0))])
    limits = Limits(max_wait_s=0.5)
    async with open_session() as session:
        app = RouterApp("router-1", clients, {"tiny": turns}, session, lambda: KEY, 15.0, limits)
        turns.start()
        yield Setup(redis, turns, app)
        await turns.stop()
    await redis.aclose()


@contextlib.asynccontextmanager
async def replica(setup: Setup, name: str, handler: Handler, limit: int) -> AsyncIterator[Replica]:
    replica = Replica(setup.redis, name, handler)
    await replica.start()
    await replica.offer(limit)
    try:
        yield replica
    finally:
        await replica.stop()


async def test_the_grant_says_who_and_nothing_of_the_clients_headers_passes(setup: Setup) -> None:
    async with replica(setup, "replica-1", fine, 1) as one:
        answer = await setup.ask(headers={"x-api-key": "sk-2", HEADER: "forged", "cookie": "c"})
        assert answer.json() == {"id": "answer"}
        (token,), (headers,) = one.tokens, one.headers
    assert (token.client, token.weight, token.replica) == ("alice", 2.0, "replica-1")
    assert not {"authorization", "x-api-key", "cookie"} & set(headers)


async def test_every_answer_has_an_id_that_the_replica_knows_and_the_wait(setup: Setup) -> None:
    async with replica(setup, "replica-1", fine, 2) as one:
        answers = [await setup.ask(headers={"x-request-id": "mine"}) for _ in range(2)]
    ids = [answer.headers["x-fairlane-request-id"] for answer in answers]
    assert len(set(ids)) == 2
    assert ids == [headers["x-request-id"] for headers in one.headers]
    assert all(int(answer.headers["x-fairlane-queue-wait-ms"]) >= 0 for answer in answers)


async def test_an_error_has_an_id_and_only_a_turn_has_a_wait(setup: Setup) -> None:
    answer = await setup.http.post("/v1/chat/completions", content=b"{")
    assert answer.status_code == 400
    assert answer.headers["x-fairlane-request-id"]
    assert "x-fairlane-queue-wait-ms" not in answer.headers


async def test_without_a_replica_it_is_503_with_retry_after(setup: Setup) -> None:
    answer = await setup.ask()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json()["error"]["message"]


async def test_a_replica_that_comes_is_found_by_the_next_request(setup: Setup) -> None:
    assert (await setup.ask()).status_code == 503
    async with replica(setup, "replica-1", fine, 1):
        assert (await setup.ask()).status_code == 200


async def test_no_turn_in_time_is_503_and_leaves_the_queue(setup: Setup) -> None:
    async with replica(setup, "replica-1", fine, 1) as one:
        await setup.ask()
        await one.offer(1)  # full: its one grant is used
        answer = await setup.ask()
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    await asyncio.sleep(0.1)
    assert await setup.alice() == (0, 0)


async def test_a_dead_replica_is_passed_over(setup: Setup) -> None:
    async with replica(setup, "replica-1", fine, 1) as dead:
        pass  # its port is closed, its offer stands
    assert dead.url
    asked = asyncio.create_task(setup.ask())
    await asyncio.sleep(0.1)
    async with replica(setup, "replica-2", fine, 1) as alive:
        assert (await asked).status_code == 200
        assert [token.lease.split(".")[1] for token in alive.tokens] == ["2"]
    assert await setup.alice() == (0, 0)


async def test_a_replica_that_vanishes_without_a_word_is_noticed(setup: Setup) -> None:
    async with replica(setup, "replica-1", hangs, 1):
        await setup.seen(replicas=1)
        async with asyncio.timeout(15):
            answer = await setup.ask()
    assert (answer.status_code, "no turn" in answer.text) == (503, True)


async def test_a_path_that_the_model_does_not_have_is_an_openai_error(setup: Setup) -> None:
    async def not_found(request: web.Request) -> web.StreamResponse:
        return web.json_response({"detail": "Not Found"}, status=404)

    async with replica(setup, "replica-1", not_found, 1):
        answer = await setup.ask()
    assert (answer.status_code, "there is nothing at" in answer.text) == (404, True)


async def test_a_refused_grant_is_asked_for_again(setup: Setup) -> None:
    refusals = iter([True, False])

    async def refuses_once(request: web.Request) -> web.StreamResponse:
        return web.Response(status=403) if next(refusals) else await fine(request)

    async with replica(setup, "replica-1", refuses_once, 2):
        assert (await setup.ask()).status_code == 200


async def test_a_stream_that_breaks_ends_with_an_error_event(setup: Setup) -> None:
    async with replica(setup, "replica-1", breaks_in_the_stream, 1):
        answer = await setup.ask()
    assert answer.status_code == 200
    assert answer.text.startswith("data: one\n\n")
    assert '"code":"replica_failed"' in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_an_answer_that_breaks_cuts_the_connection(setup: Setup) -> None:
    async with replica(setup, "replica-1", breaks_in_the_json, 1):
        with pytest.raises(BrokenAnswerError):  # the server then closes the connection
            await setup.ask()


async def test_too_many_waiting_requests_of_one_client_are_429(setup: Setup) -> None:
    async with replica(setup, "replica-1", hangs, 1):
        await setup.seen(replicas=1)
        running = asyncio.create_task(setup.ask())
        await asyncio.sleep(0.1)
        waiting = [asyncio.create_task(setup.ask()) for _ in range(2)]
        await asyncio.sleep(0.1)
        answer = await setup.ask()
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert answer.json()["error"]["code"] == "queue_full"
        sdk = AsyncOpenAI(
            base_url="http://router/v1", api_key="sk-1", http_client=setup.http, max_retries=0
        )
        with pytest.raises(RateLimitError):
            await sdk.chat.completions.create(model="tiny", messages=[])
        for task in (running, *waiting):
            task.cancel()
        await asyncio.gather(running, *waiting, return_exceptions=True)
    await asyncio.sleep(0.2)
    assert await setup.alice() == (0, 0)
