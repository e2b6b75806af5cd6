"""The door of a replica's own port: nobody enters without a grant of the global queue."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Protocol

import orjson

from fairness.grant_token import HEADER, GrantToken, InvalidTokenError
from fairness.store import stand_in
from replicas.lease_book import DuplicateLeaseError, Lease

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# The lease under which this task and its children use the engine.
CURRENT_LEASE: ContextVar[Lease | None] = ContextVar("fairlane_lease", default=None)


def about_lease() -> dict[str, Any]:
    """For log lines: which request is served where it is called."""
    lease = CURRENT_LEASE.get()
    if lease is None:
        return {}
    request, _, _ = lease.name.rpartition(".")
    return {"request_id": request, "lease": lease.name, "client": lease.token.client}


class Leases(Protocol):
    """Who keeps the leases."""

    def open(self, token: GrantToken) -> Lease:
        """Raises DuplicateLeaseError."""
        ...

    def close(self, lease: Lease) -> None: ...


class GrantCheck:
    """ASGI middleware around vLLM's app: checks the grant, opens and closes its lease.

    Without a lease (a pass, for models and tokenizing) the engine's wrappers refuse to generate.
    """

    def __init__(
        self,
        app: App,
        *,
        key: Callable[[], bytes],
        replica: str,
        leases: Leases,
        engine_works: Callable[[], bool],
        answer: Callable[[stand_in.Question], stand_in.Answer],
    ) -> None:
        """answer: to routers that do without the store."""
        self._app = app
        self._key = key
        self._replica = replica
        self._leases = leases
        self._engine_works = engine_works
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # no web sockets, no lifespan
        if not self._engine_works():
            await _refuse(send, "the engine of this replica is dead")  # the router asks another
            return
        try:
            token = self._token(scope)
            lease = self._leases.open(token) if token.lease else None
        except (InvalidTokenError, DuplicateLeaseError) as error:
            await _refuse(send, str(error))
            return
        if lease is None:
            if scope["path"] == stand_in.PATH:
                await self._stand_in(token, receive, send)
            else:
                await self._app(scope, receive, send)
            return
        CURRENT_LEASE.set(lease)
        try:
            await self._app(scope, receive, send)
        finally:
            self._leases.close(lease)

    async def _stand_in(self, token: GrantToken, receive: Receive, send: Send) -> None:
        if token.client:  # a client's pass: its request only looks like a router's
            await _refuse(send, "this path is for Fairlane's routers")
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        answer = self._answer(stand_in.Question.from_json(orjson.loads(body)))
        await _send(send, 200, answer.to_json())

    def admit(self, text: str) -> None:
        """Check the token that a router shows as it connects. Raises InvalidTokenError."""
        if self._decode(text).client:
            raise InvalidTokenError("a client's pass is no router's token")

    def _token(self, scope: Scope) -> GrantToken:
        for name, value in scope["headers"]:
            if name == HEADER.encode():
                return self._decode(value.decode("latin-1"))
        raise InvalidTokenError("this port is for Fairlane's routers; send requests to them")

    def _decode(self, text: str) -> GrantToken:
        return GrantToken.decode(text, self._key(), self._replica, time.time())


async def _refuse(send: Send, message: str) -> None:
    error = {"message": message, "type": "invalid_grant", "param": None, "code": 403}
    await _send(send, 403, {"error": error})


async def _send(send: Send, status: int, content: Any) -> None:
    body = orjson.dumps(content)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
