"""The router's HTTP side: pure ASGI, one function per kind of request.

A request that uses the engine goes: key -> client, body, model -> pool, its turn, relay. Others
(models, tokenizing) are relayed with a pass that cannot use the engine.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import orjson

from fairness.grant_token import HEADER, GrantToken
from fairness.store.contract import StoreUnavailableError
from router.bodies import Body, ClientGoneError, check_body, read_body
from router.body_rules import BodyRules
from router.clients import Client, Clients
from router.errors import ApiError, not_found, unavailable, unknown_model
from router.explain.story import Story
from router.meter import Meter
from router.rate_limits import rate_headers
from router.relay import BrokenAnswerError, ReplicaFailedError, error_event, relay
from router.trunks import Trunks
from router.turns import Turn, Turns
from router.watch import Watch

logger = logging.getLogger(__name__)

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

ENGINE_PATHS = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/messages",
        "/v1/embeddings",
        "/v1/score",
        "/v1/rerank",
    }
)
PASS_PATHS = frozenset({"/tokenize", "/detokenize", "/v1/tokenize", "/v1/detokenize"})
PASS_TTL_S = 30.0
EVENT_STREAM = b"text/event-stream"
GRANT_ATTEMPTS = 4

CURRENT: ContextVar[Exchange | None] = ContextVar("fairlane_exchange", default=None)


@dataclass(frozen=True, slots=True)
class Limits:
    """max_body_bytes: of one request. max_wait_s: for one's turn. body_timeout_s: for a whole
    body to come. rules: what it may ask."""

    max_body_bytes: int = 8 * 2**20
    max_wait_s: float = 600.0
    body_timeout_s: float = 60.0
    rules: BodyRules = field(default_factory=BodyRules)


@dataclass(slots=True)
class RouterApp:
    """The ASGI application. `turns`: pool (model) -> its queue. `adapters`: LoRA adapters, models
    of their own to clients -> the pool that serves them. `prices`: of adapters, next to their
    pool's."""

    name: str
    clients: Clients
    turns: dict[str, Turns]
    trunks: Trunks
    grant_key: Callable[[], bytes]
    grant_ttl_s: float
    limits: Limits
    admin: Asgi | None = None  # what is under /admin and /dashboard
    meter: Meter = field(default_factory=Meter)
    me: Asgi | None = None  # what is under /me
    adapters: Mapping[str, str] = field(default_factory=dict)
    prices: Mapping[str, float] = field(default_factory=dict)
    started: int = field(default_factory=lambda: int(time.time()))
    watch: Watch | None = None  # who looks at requests
    _exchanges: set[Exchange] = field(default_factory=set)  # those open

    def end(self) -> None:
        """End in words what is still open: the process is about to go."""
        logger.warning("ending with %s open requests", len(self._exchanges))
        for exchange in self._exchanges:
            exchange.end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await refuse_websocket(scope, send)
            return
        exchange = Exchange(scope, receive, send)
        CURRENT.set(exchange)
        other = self._other(exchange.path + "/")
        if other is not None:
            await other(scope | {"path": exchange.path, "root_path": ""}, receive, send)
            return
        self._exchanges.add(exchange)
        try:
            await self._route(exchange)
        except ApiError as error:
            await self._refuse(exchange, error)
        except StoreUnavailableError:
            away = unavailable("the global queue is out of reach; try again")
            await self._refuse(exchange, away)
        except ClientGoneError:
            pass  # nobody to answer
        except BrokenAnswerError:
            raise  # the server cuts the connection: that is how a client learns of it
        except Exception:  # the edge: a fault of ours is logged and answered, never left hanging
            logger.exception("a request failed by a fault of the router")
            message = "the router failed on this request"
            fault = ApiError(500, message, "server_error", "internal_error")
            await self._refuse(exchange, fault)
        finally:
            self._exchanges.discard(exchange)

    def _other(self, path: str) -> Asgi | None:
        """What answers below this path, if it is not this application."""
        if path.startswith(("/admin/", "/dashboard/")):
            return self.admin
        return self.me if path.startswith("/me/") else None

    async def identify(self, authorization: str | None) -> Client:
        """The client of an Authorization header. Raises ApiError."""
        return await self.clients.client(authorization)

    def told_limits(self) -> dict[str, float]:
        """What a client is told of its limits."""
        queue = [turns.limits for turns in self.turns.values()]
        return {
            "max_body_bytes": self.limits.max_body_bytes,
            "max_wait_s": self.limits.max_wait_s,
            "waiting_requests": min((one.requests_per_client for one in queue), default=0),
            "waiting_bytes": min((one.bytes_per_client for one in queue), default=0),
        }

    async def _refuse(self, exchange: Exchange, error: ApiError) -> None:
        self.meter.refused(error.code or str(error.status))
        await exchange.refuse(error)

    async def _route(self, exchange: Exchange) -> None:
        path, method = exchange.path, exchange.method
        if method in ("GET", "HEAD"):
            if path == "/healthz":
                await exchange.answer({"status": "ok", "router": self.name})
            elif path == "/readyz":
                await self._readyz(exchange)
            elif path == "/v1/models":
                await self.clients.client(exchange.header("authorization"))
                models = [self._model(name) for name in (*self.turns, *self.adapters)]
                await exchange.answer({"object": "list", "data": models})
            elif path.startswith("/v1/models/"):
                await self.clients.client(exchange.header("authorization"))
                name = path.removeprefix("/v1/models/")
                self._pool(name)
                await exchange.answer(self._model(name))
            else:
                raise not_found(path)
        elif method == "POST" and path in ENGINE_PATHS:
            client, body = await self._admit(exchange)
            await self._serve(exchange, client, body)
        elif method == "POST" and path in PASS_PATHS:
            client, body = await self._admit(exchange)
            await self._pass(exchange, client, body)
        else:
            raise not_found(path)

    async def _admit(self, exchange: Exchange) -> tuple[Client, Body]:
        """Identity first: nothing of a stranger's body is read."""
        client = await self.clients.client(exchange.header("authorization"))
        exchange.client = client.name
        length = exchange.header("content-length")
        limits = self.limits
        data = await read_body(
            exchange.receive, length, limits.max_body_bytes, limits.body_timeout_s
        )
        return client, check_body(data, exchange.path, limits.rules)

    async def _serve(self, exchange: Exchange, client: Client, body: Body) -> None:
        turns = self._pool(body.model)
        if body.prompt_logprobs and self._pool_of(body.model) in self.adapters.values():
            raise ApiError(
                400,
                f"'{body.prompt_logprobs}' asks for log probabilities of the prompt, which the "
                f"engine can't tell where it serves LoRA adapters, as it does of {body.model!r}",
                param=body.prompt_logprobs,
            )
        if self.watch is None:
            await self._take_turn(exchange, client, body, turns, None)
            return
        with self.watch.over(
            exchange, client, body, self._pool_of(body.model), turns.following
        ) as story:
            await self._take_turn(exchange, client, body, turns, story)

    async def _take_turn(
        self, exchange: Exchange, client: Client, body: Body, turns: Turns, story: Story | None
    ) -> None:
        await self._require_ready(turns, body.model)
        turn = turns.submit(
            client,
            len(body.data),
            body.priority,
            body.max_output,
            price=self.prices.get(body.model, 1.0),
            story=story,
        )
        exchange.in_line(turn)
        pool = self._pool_of(body.model)
        exchange.on_stream = lambda waited_s: self.meter.first_token(pool, waited_s)
        outcome = "failed"
        try:
            await exchange.unless_gone(self._wait_and_relay(exchange, turns, turn, body))
            outcome = exchange.outcome
        except (ClientGoneError, asyncio.CancelledError):  # the server cancels, too
            outcome = "gone"
            raise
        except ApiError:
            outcome = "refused"
            raise
        finally:
            turns.leave(turn)
            self.meter.ended(pool, outcome)

    async def _require_ready(self, turns: Turns, model: str) -> None:
        if await turns.look():
            return
        if not turns.store_alive:
            raise unavailable("the global queue is out of reach; try again soon", 2)
        raise unavailable(f"no replica of {model!r} can serve now; try again soon", 2)

    async def _wait_and_relay(
        self, exchange: Exchange, turns: Turns, turn: Turn, body: Body
    ) -> None:
        max_wait_s = turn.client.max_wait_s(self.limits.max_wait_s)
        for _ in range(GRANT_ATTEMPTS):
            try:
                async with asyncio.timeout(max_wait_s):
                    await turn.grant
            except TimeoutError:
                raise unavailable(
                    f"no turn within {max_wait_s:g} s: the cluster is overloaded", 10
                ) from None
            grant = turn.grant.result()
            self.meter.waited(self._pool_of(body.model), exchange.waited())
            token = GrantToken(
                lease=grant.lease,
                client=turn.client.name,
                replica=grant.replica,
                expires=time.time() + self.grant_ttl_s,
                weight=turn.client.weight,
                counter=grant.counter,
                priority=turn.priority,
                groups=grant.groups,
                price=turn.price,
            )
            try:
                whole = await self._relay(exchange, grant.url, token, turns, body=body, turn=turn)
                exchange.broken = not whole
                if whole:
                    turns.ended(turn)
                return
            except ReplicaFailedError as error:
                logger.warning("replica %s failed, asking another: %s", grant.replica, error)
                if turn.story is not None:
                    turn.story.fail(str(error))
                turns.retry(turn)
        raise unavailable("the replicas asked failed; try again", 2)

    async def _pass(self, exchange: Exchange, client: Client, body: Body) -> None:
        turns = self._pool(body.model)
        await self._require_ready(turns, body.model)
        replica, url = random.choice(list(turns.replicas.items()))
        token = GrantToken("", client.name, replica, time.time() + PASS_TTL_S)
        work = self._relay(exchange, url, token, turns, body=body)
        try:
            await exchange.unless_gone(work)
        except ReplicaFailedError as error:
            logger.warning("replica %s failed: %s", replica, error)
            raise unavailable("the replica asked failed; try again") from error

    async def _relay(
        self,
        exchange: Exchange,
        url: str,
        token: GrantToken,
        turns: Turns,
        *,
        body: Body,
        turn: Turn | None = None,
    ) -> bool:
        """Was the answer whole?"""
        path = exchange.path
        if path in PASS_PATHS:
            path = path.removeprefix("/v1")
        headers = [
            ("content-type", "application/json"),
            (HEADER, token.encode(self.grant_key())),
        ]
        if turn is not None:
            # vLLM's id; a client's may not be unique
            headers.append(("x-request-id", turn.request))
            if turn.story is not None:
                turn.story.ask()
        if self.watch is not None:
            headers += self.watch.headers(None if turn is None else turn.story)
        return await relay(
            self.trunks,
            body,
            exchange.send,
            replica=token.replica,
            url=url,
            path=path,
            headers=headers,
            lifeline=lambda: turns.lifeline(token.replica),
            answered=lambda: turns.answered(turn) if turn is not None else None,
        )

    def _pool_of(self, model: str) -> str:
        return self.adapters.get(model, model)

    def _pool(self, model: str) -> Turns:
        turns = self.turns.get(self._pool_of(model))
        if turns is None:
            raise unknown_model(model, [*self.turns, *self.adapters])
        return turns

    def _model(self, name: str) -> dict[str, Any]:
        card = {"id": name, "object": "model", "created": self.started, "owned_by": "fairlane"}
        return card | {"parent": self.adapters[name]} if name in self.adapters else card

    async def _readyz(self, exchange: Exchange) -> None:
        pools = {name: len(turns.replicas) for name, turns in self.turns.items()}
        ready = all(turns.ready for turns in self.turns.values())
        status = 200 if ready else 503
        degraded = any(turns.degraded for turns in self.turns.values())
        content = {"ready": ready, "degraded": degraded, "replicas": pools}
        await exchange.answer(content, status)


def about_request() -> dict[str, Any]:
    """For log lines: which request is served where it is called."""
    exchange = CURRENT.get()
    if exchange is None:
        return {}
    fields = {"request_id": exchange.request_id}
    return fields if exchange.client is None else fields | {"client": exchange.client}


async def refuse_websocket(scope: Scope, send: Send) -> None:
    """There are none here; without a word the server would call that a fault of ours (500)."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000, "reason": ""})


class Exchange:
    """One HTTP request and its answer. Times: `at` in Unix seconds, others of `time.monotonic`."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        root = scope.get("root_path", "")
        self.path: str = scope["path"].removeprefix(root) if root else scope["path"]
        self.receive = receive
        self._headers = scope["headers"]
        self._send = send
        self._started = False
        self.request_id = secrets.token_hex(8)
        self.client: str | None = None
        self.at, self.born = time.time(), time.monotonic()
        self.status: int | None = None
        self.broken = False  # the answer was cut off
        self._turn: Turn | None = None
        self._queued = 0.0
        self._waited_s: float | None = None
        self._streams = False
        self._stream_to_come = False
        self._working: asyncio.Future[None] | None = None
        self._ending = False
        self.on_stream: Callable[[float], None] | None = None  # told when the first bytes come

    def in_line(self, turn: Turn) -> None:
        """It waits for its turn, under an id that its replica knows, too."""
        self._turn = turn
        self.request_id = turn.request
        self._queued = time.monotonic()

    def waited(self) -> float:
        """Its turn has come, after so many seconds."""
        self._waited_s = time.monotonic() - self._queued
        return self._waited_s

    @property
    def outcome(self) -> str:
        """How the answer went that was passed on: ok, rejected or failed."""
        status = self.status or 0
        if self.broken or status >= 500:
            return "failed"
        return "rejected" if status >= 400 else "ok"

    def header(self, name: str) -> str | None:
        """The first header of that (lower-case) name."""
        wanted = name.encode()
        for key, value in self._headers:
            if key == wanted:
                return str(value.decode("latin-1"))
        return None

    async def send(self, message: dict[str, Any]) -> None:
        """Pass an ASGI message on, remembering that the answer has begun."""
        self._started = True
        if self._stream_to_come:
            self._stream_to_come = False
            if self.on_stream is not None:
                self.on_stream(time.monotonic() - self._queued)
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._streams = self._stream_to_come = any(
                name == b"content-type" and value.startswith(EVENT_STREAM)
                for name, value in message["headers"]
            )
            message = message | {"headers": [*message["headers"], *self._own_headers()]}
        await self._send(message)

    def _own_headers(self) -> list[tuple[bytes, bytes]]:
        headers = [(b"x-fairlane-request-id", self.request_id.encode())]
        if self._waited_s is not None:
            waited = b"%d" % round(self._waited_s * 1000)
            headers.append((b"x-fairlane-queue-wait-ms", waited))
        if self._turn is not None:
            headers += rate_headers(self._turn.rates)
        return headers

    async def answer(
        self, content: Any, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        """Answer with JSON."""
        body = content if isinstance(content, bytes) else orjson.dumps(content)
        own = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await self.send(
            {"type": "http.response.start", "status": status, "headers": own + (headers or [])}
        )
        await self.send({"type": "http.response.body", "body": body})

    async def refuse(self, error: ApiError) -> None:
        """Answer with an error, if nothing was answered yet; else cut the connection."""
        if self._started:
            raise BrokenAnswerError from error
        await self.answer(error.body(), error.status, error.headers())

    async def unless_gone(self, work: Any) -> None:
        """Run `work` until it ends, or is cancelled because the client goes away or the router
        ends.

        Raises ClientGoneError, whatever `work` raises, and at the router's end what tells the
        client: an ApiError, or BrokenAnswerError. A stream is ended with an error event.
        """
        working = self._working = asyncio.ensure_future(work)
        watching = asyncio.ensure_future(self._gone())
        if self._ending:
            working.cancel()
        try:
            await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ClientGoneError
            if self._ending and working.cancelled():
                await self._tell_end()
            else:
                working.result()
        finally:
            for task in (working, watching):
                task.cancel()
            await asyncio.gather(working, watching, return_exceptions=True)

    def end(self) -> None:
        """The router goes before the answer is whole. See `unless_gone`."""
        self._ending = True
        if self._working is not None:
            self._working.cancel()

    async def _tell_end(self) -> None:
        if not self._started:
            raise unavailable("this router is ending; ask again")
        if not self._streams:
            raise BrokenAnswerError("the router is ending")
        self.broken = True
        event = error_event("the server of this stream was ended", "server_ended")
        await self.send({"type": "http.response.body", "body": event})

    async def _gone(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass  # bytes after the body are not ours to read
