"""The door of a replica's own HTTP port: nobody enters without a grant of the global queue."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Protocol

import orjson

from fairness.grant_token import HEADER, GrantToken, InvalidTokenError
from replicas.lease_book import DuplicateLeaseError, Lease

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# The lease under which this task and its children use the engine.
CURRENT_LEASE: ContextVar[Lease | None] = ContextVar("fairlane_lease", default=None)


class Leases(Protocol):
    """Who keeps the leases."""

    def open(self, token: GrantToken) -> Lease:
        """Raises DuplicateLeaseError."""
        ...

    def close(self, lease: Lease) -> None: ...


class GrantCheck:
    """Pure ASGI middleware around vLLM's app: checks the grant, opens and closes its lease.

    Without a lease (a pass, for models and tokenizing) the engine's wrappers refuse to generate.
    """

    def __init__(
        self,
        app: App,
        *,
        key: bytes,
        replica: str,
        leases: Leases,
        engine_works: Callable[[], bool],
    ) -> None:
        self._app = app
        self._key = key
        self._replica = replica
        self._leases = leases
        self._engine_works = engine_works

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
            await self._app(scope, receive, send)
            return
        CURRENT_LEASE.set(lease)
        try:
            await self._app(scope, receive, send)
        finally:
            self._leases.close(lease)

    def _token(self, scope: Scope) -> GrantToken:
        for name, value in scope["headers"]:
            if name == HEADER.encode():
                return GrantToken.decode(
                    value.decode("latin-1"), self._key, self._replica, time.time()
                )
        raise InvalidTokenError("this port is for Fairlane's routers; send requests to them")


async def _refuse(send: Send, message: str) -> None:
    body = orjson.dumps(
        {"error": {"message": message, "type": "invalid_grant", "param": None, "code": 403}}
    )
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
