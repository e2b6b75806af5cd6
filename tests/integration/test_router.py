"""The router with a real store, and with replicas that behave as badly as replicas can.

The replica here has the product's own port and offers credits through the real queue; what its app
answers is the scenario's choice.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import httpx
import pytest
import pytest_asyncio
import uvicorn
from openai import AsyncOpenAI, RateLimitError
from redis.asyncio import Redis

from fairness.grant_token import HEADER, GrantToken
from fairness.store.connection import connect
from fairness.store.contract import Call, QueueSettings, Sender, Usage
from fairness.store.locate import LocatedQueue
from fairness.store.redis_store import RedisQueue
from fairness.store.settings import StoreSettings
from fairness.trunk.window import DOWNLOAD
from router.app import Limits, RouterApp
from router.clients import Client, Clients, Group, hash_key
from router.limits import QueueLimits
from router.meter import Meter
from router.relay import BrokenAnswerError
from router.trunks import Trunks
from router.turns import Turns
from tests.integration.trunk_replica import KEY, Handler, Request, TrunkReplica

pytestmark = pytest.mark.integration

SILENCE_S = 2.0
SETTINGS = QueueSettings(sender_ttl_ms=4000)
# Where a busy event loop must not pass for a dead replica, router or store:
PATIENT_MS = 300_000
PATIENT = QueueSettings(sender_ttl_ms=PATIENT_MS, grant_ttl_ms=PATIENT_MS)
IMPATIENT = Limits(max_wait_s=0.5)
CHAT = {"model": "tiny", "messages": []}


class Replica(TrunkReplica):
    """Offers credits and settles what it was granted."""

    def __init__(self, redis: Redis, name: str, handler: Handler, settings: QueueSettings) -> None:
        super().__init__(name, self._answer)
        self.sender = Sender("replica", name)
        self.headers: list[dict[str, str]] = []
        self._queue = RedisQueue(redis, "tiny", settings)
        self._handler = handler
        self._version = 0

    @property
    def tokens(self) -> list[GrantToken]:
        return self.leases.tokens

    async def offer(self, limit: int) -> None:
        self._version += 1
        call = Call()
        call.offer(self.url, limit, 0, self._version, 4096)
        await self._queue.execute(self.sender, call)

    async def _answer(self, request: Request) -> None:
        self.headers.append(request.headers)
        try:
            await self._handler(request)
        finally:
            call = Call()
            assert request.lease is not None
            call.settle(request.lease.name, Usage(1, 0, 1))
            await self._queue.execute(self.sender, call)


async def fine(request: Request) -> None:
    await request.answer(b'{"id":"answer"}')


async def breaks_in_the_stream(request: Request) -> None:
    await request.start()
    await request.write(b"data: one\n\n")
    raise RuntimeError("played")


async def breaks_in_the_json(request: Request) -> None:
    await request.start("application/json", **{"content-length": "100"})
    await request.write(b'{"id":')
    raise RuntimeError("played")


async def hangs(request: Request) -> None:
    await request.left()


class Setup:
    """A router on a fresh store."""

    def __init__(self, redis: Redis, turns: Turns, app: RouterApp, settings: QueueSettings) -> None:
        self.redis = redis
        self.settings = settings
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
        async with asyncio.timeout(60):
            while len(self.turns.replicas) < replicas:
                await asyncio.sleep(0.01)

    async def alice(self) -> tuple[int, int]:
        """(waiting, running)"""
        for state in await self.turns.clients():
            return state.waiting, state.running
        return 0, 0


@contextlib.asynccontextmanager
async def router_on(
    url: str, settings: QueueSettings, store: StoreSettings
) -> AsyncIterator[Setup]:
    redis = connect(url)
    queue = await LocatedQueue.open(store, "tiny", settings)
    turns = Turns("router-1", queue, QueueLimits(requests_per_client=3), settings)
    alice = Client("alice", 2.0, (Group("acme", 3.0), Group("acme/ml")))
    clients = Clients([(hash_key("sk-1"), alice)])
    trunks = Trunks(lambda: KEY)
    grant_ttl_s = settings.grant_ttl_ms / 1000
    app = RouterApp(
        "router-1", clients, {"tiny": turns}, trunks, lambda: KEY, grant_ttl_s, Limits()
    )
    turns.start()
    yield Setup(redis, turns, app, settings)
    await turns.stop()
    await trunks.close()
    await redis.aclose()


@pytest_asyncio.fixture
async def setup(server_url: str) -> AsyncIterator[Setup]:
    async with router_on(server_url, SETTINGS, StoreSettings(server_url)) as made:
        yield made


@pytest_asyncio.fixture
async def patient(server_url: str) -> AsyncIterator[Setup]:
    """The same, whatever the machine is busy with."""
    limit_s = PATIENT_MS / 1000
    store = StoreSettings(server_url, connect_timeout_s=limit_s, call_timeout_s=limit_s)
    async with router_on(server_url, PATIENT, store) as made:
        yield made


@contextlib.asynccontextmanager
async def replica(setup: Setup, name: str, handler: Handler, limit: int) -> AsyncIterator[Replica]:
    replica = Replica(setup.redis, name, handler, setup.settings)
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
    assert [group[:2] for group in token.groups] == [("acme/", 3.0), ("acme/ml/", 1.0)]
    acme, ml = (group.counter for group in token.groups)
    assert acme is not None and ml is not None
    assert ml == 2 * token.counter > acme == pytest.approx(ml / 3)
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
    setup.app.limits = IMPATIENT
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
    setup.app.limits = IMPATIENT
    async with replica(setup, "replica-1", hangs, 1):
        await setup.seen(replicas=1)
        async with asyncio.timeout(15):
            answer = await setup.ask()
    assert (answer.status_code, "no turn" in answer.text) == (503, True)


async def test_a_path_that_the_model_does_not_have_is_an_openai_error(setup: Setup) -> None:
    async def not_found(request: Request) -> None:
        await request.answer(b'{"detail":"Not Found"}', 404)

    async with replica(setup, "replica-1", not_found, 1):
        answer = await setup.ask()
    assert (answer.status_code, "there is nothing at" in answer.text) == (404, True)


async def test_an_error_of_the_model_passes_with_its_status_and_body(setup: Setup) -> None:
    async def refuses(request: Request) -> None:
        await request.answer(b'{"error":{"message":"no such adapter"}}', 404)

    async with replica(setup, "replica-1", refuses, 1):
        answer = await setup.ask()
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, "no such adapter")


async def test_a_refused_grant_is_asked_for_again(patient: Setup) -> None:
    refusals = iter([True, False])

    async def refuses_once(request: Request) -> None:
        if next(refusals):
            await request.answer(b"", 403)
        else:
            await fine(request)

    async with replica(patient, "replica-1", refuses_once, 2) as one:
        await patient.seen(replicas=1)
        asked = asyncio.create_task(patient.ask())
        while not asked.done():
            # Whether the router's word comes first or the replica's: who refused a grant gets
            # another only after it has offered again.
            await one.offer(2)
            await asyncio.sleep(0.01)
        assert (await asked).status_code == 200
        assert len(one.tokens) == 2


async def test_a_connection_lost_before_the_answer_is_asked_again_elsewhere(setup: Setup) -> None:
    async with replica(setup, "replica-1", hangs, 1) as dies:
        asked = asyncio.create_task(setup.ask())
        while not dies.tokens:
            await asyncio.sleep(0.01)
        await dies.stop()
        async with replica(setup, "replica-2", fine, 1) as alive:
            assert (await asked).json() == {"id": "answer"}
            assert len(alive.tokens) == 1


async def test_a_stream_that_breaks_ends_with_an_error_event(setup: Setup) -> None:
    async with replica(setup, "replica-1", breaks_in_the_stream, 1):
        answer = await setup.ask()
    assert answer.status_code == 200
    assert answer.text.startswith("data: one\n\n")
    assert '"code":"replica_failed"' in answer.text
    assert answer.text.endswith("data: [DONE]\n\n")


async def test_a_stream_whose_replica_dies_ends_with_an_error_event(setup: Setup) -> None:
    replicas: list[Replica] = []

    async def dies(request: Request) -> None:
        await request.start()
        await request.write(b"data: one\n\n")
        await asyncio.sleep(0)  # so that it has left
        for trunk in list(replicas[0].port._trunks):
            trunk.fail("played")

    async with replica(setup, "replica-1", dies, 1) as one:
        replicas.append(one)
        answer = await setup.ask()
    assert answer.text.startswith("data: one\n\n")
    assert '"code":"replica_failed"' in answer.text


async def test_a_router_that_ends_tells_every_client_so(setup: Setup) -> None:
    left: list[str] = []

    async def goes_on(request: Request) -> None:
        kind = "text/event-stream" if len(left) == 0 else "application/json"
        left.append(kind)
        await request.start(kind)
        await request.write(b"data: one\n\n")
        await request.left()
        left.remove(kind)

    async with replica(setup, "replica-1", goes_on, 2) as one:
        stream, answer = (asyncio.create_task(setup.ask()) for _ in range(2))
        async with asyncio.timeout(10):
            while len(left) < 2:
                await asyncio.sleep(0.01)
            waits = asyncio.create_task(setup.ask())  # there is no third credit
            while setup.turns.waiting < 1:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)  # what was written has come
            setup.app.end()
            told = [await task for task in (stream, waits)]
            with pytest.raises(BrokenAnswerError):
                await answer
            while left:  # the replica works on for nobody
                await asyncio.sleep(0.01)
        await one.leases.all_closed()
    assert told[0].text.startswith("data: one\n\n")
    assert '"code":"server_ended"' in told[0].text
    assert told[0].text.endswith("data: [DONE]\n\n")
    assert told[1].status_code == 503
    assert told[1].headers["retry-after"]
    assert setup.turns.waiting == 0
    async with asyncio.timeout(10):
        while await setup.alice() != (0, 0):
            await asyncio.sleep(0.02)


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


async def test_a_client_that_reads_nothing_stops_its_replica_and_no_other_stream(
    setup: Setup,
) -> None:
    size, made = 4 * 2**20, []

    async def produces(request: Request) -> None:
        mine = len(made)
        made.append(0)
        await request.start()
        for _ in range(0, size, 1024):
            await request.write(b"x" * 1024)
            made[mine] += 1024
        await request.write(b"", more=False)

    reads, received = asyncio.Event(), 0
    request = [{"type": "http.request", "body": b'{"model": "tiny"}', "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not request:
            await asyncio.Event().wait()  # the client stays
        return request.pop()

    async def send(message: dict[str, Any]) -> None:
        nonlocal received
        await reads.wait()
        received += len(message.get("body", b""))

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/completions",
        "headers": [(b"authorization", b"Bearer sk-1")],
    }
    async with replica(setup, "replica-1", produces, 2):
        await setup.seen(replicas=1)
        stalled = asyncio.create_task(setup.app(scope, receive, send))
        while not made:
            await asyncio.sleep(0.01)
        assert len((await setup.ask()).content) == size == made[1]
        assert made[0] <= DOWNLOAD
        reads.set()
        await stalled
        assert received == size


STREAMS = 1000
CHUNKS = 20


@contextlib.asynccontextmanager
async def served(app: RouterApp) -> AsyncIterator[str]:
    """The router on a port, as Serve serves it."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2 * STREAMS)
    config = uvicorn.Config(app, lifespan="off", access_log=False, log_level="warning")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    host, port = listener.getsockname()[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        await serving


async def test_a_thousand_open_streams_lose_no_byte(patient: Setup) -> None:
    """All are open at the same time, then speak in turns; each says something of its own."""
    open_now, all_open, connected = 0, asyncio.Event(), asyncio.Event()

    def chunk(who: str, number: int) -> bytes:
        return f"data: {who} says {number}\n\n".encode()

    async def speaks(request: Request) -> None:
        nonlocal open_now
        if not connected.is_set():
            connected.set()
            return await fine(request)
        who = request.headers["x-request-id"]
        await request.start()
        await request.write(chunk(who, 0))
        open_now += 1
        if open_now == STREAMS:
            all_open.set()
        await all_open.wait()
        for number in range(1, CHUNKS):
            await request.write(chunk(who, number))
            await asyncio.sleep(0)
        await request.write(b"", more=False)

    async def listen(http: aiohttp.ClientSession, url: str) -> str:
        async with http.post(url, json=CHAT, headers={"Authorization": "Bearer sk-1"}) as answer:
            assert answer.status == 200
            received = await answer.read()
        who = received.split()[1].decode()
        assert received == b"".join(chunk(who, number) for number in range(CHUNKS))
        return who

    patient.app.limits = Limits()
    patient.turns.limits = QueueLimits()
    connector = aiohttp.TCPConnector(limit=0)
    no_limit = aiohttp.ClientTimeout(total=None, sock_connect=None)
    async with (
        replica(patient, "replica-1", speaks, STREAMS + 1) as one,
        served(patient.app) as url,
        aiohttp.ClientSession(connector=connector, timeout=no_limit) as http,
    ):
        await patient.seen(replicas=1)
        await patient.ask()  # connects: has a time limit, which a thousand at once may exceed
        path = f"{url}/v1/chat/completions"
        heard = await asyncio.gather(*(listen(http, path) for _ in range(STREAMS)))
        assert len(set(heard)) == STREAMS
        assert len(one.port._trunks) == 1


class Pools(Meter):
    """Notes which pools are told of."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def waited(self, pool: str, seconds: float) -> None:
        self.told.append(pool)

    def ended(self, pool: str, outcome: str) -> None:
        self.told.append(pool)


@pytest.mark.parametrize("model", ["tiny", "poems"])
async def test_an_engine_with_adapters_is_not_asked_for_logprobs_of_the_prompt(
    setup: Setup, model: str
) -> None:
    """They ended vLLM's engine, and with it all that ran there. Found by fuzzing."""
    setup.app.adapters = {"poems": "tiny"}
    asked = {"model": model, "prompt": "x", "max_tokens": 1, "logprobs": 1, "echo": True}
    answer = await setup.http.post("/v1/completions", json=asked)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "echo"
    setup.app.adapters = {}
    async with replica(setup, "replica-1", fine, 1):
        plain = asked | {"model": "tiny"}
        assert (await setup.http.post("/v1/completions", json=plain)).status_code == 200


async def test_an_adapter_is_a_model_served_by_its_pool(setup: Setup) -> None:
    setup.app.adapters = {"poems": "tiny"}
    setup.app.prices = {"poems": 3.0}
    setup.app.meter = meter = Pools()
    bodies: list[bytes] = []

    async def answer(request: Request) -> None:
        bodies.append(request.body)
        await fine(request)

    poem = b'{"model": "poems", "messages": []}'
    async with replica(setup, "replica-1", answer, 1) as one:
        answered = await setup.http.post("/v1/chat/completions", content=poem)
        assert answered.status_code == 200
        async with asyncio.timeout(5):
            while (alice := (await setup.turns.clients())[0]).running:
                await asyncio.sleep(0.01)
    assert bodies == [poem]
    assert [token.price for token in one.tokens if token.lease] == [3.0]
    assert (alice.input_tokens, alice.output_tokens, alice.service) == (1, 1, 9)
    assert meter.told == ["tiny", "tiny"]
    assert [state.client for state in await setup.turns.clients()] == ["alice"]
    listed = (await setup.http.get("/v1/models")).json()["data"]
    assert [(card["id"], card.get("parent")) for card in listed] == [
        ("tiny", None),
        ("poems", "tiny"),
    ]
    assert (await setup.http.get("/v1/models/poems")).json()["parent"] == "tiny"
    prose = await setup.http.post("/v1/chat/completions", json={**CHAT, "model": "prose"})
    assert prose.status_code == 404
    assert "tiny, poems" in prose.json()["error"]["message"]
