"""The door of the admin API: its own keys, and bodies within a bound."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from router.bodies import ClientGoneError, read_body
from router.clients import bearer_key, hash_key, key_id
from router.directory.records import Actor
from router.errors import ApiError, unauthorized

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 64 * 1024
ORIGIN_LENGTH = 200

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Asgi = Callable[..., Awaitable[None]]


class AdminKeys:
    """The keys that open the admin API, and nothing else."""

    def __init__(self, hashes: Iterable[str]) -> None:
        self._hashes = tuple(hashes)

    def check(self, authorization: str | None) -> str:
        """The id of the admin key in an Authorization header. Raises ApiError 401, after the same
        time for every other key."""
        hashed = hash_key(bearer_key(authorization))
        if not sum(hmac.compare_digest(hashed, known) for known in self._hashes):
            raise unauthorized("this needs an admin key")
        return key_id(hashed)


class Guard:
    """ASGI: checks the key before anything else, so that others can't even learn which paths
    there are; then reads the body and hands both on. The `Actor` is in `scope["state"]`."""

    def __init__(self, keys: AdminKeys, app: Asgi) -> None:
        self._keys = keys
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":  # refused by name: silence would be a 500
                await send({"type": "websocket.close", "code": 1000, "reason": ""})
            return
        headers = {name: value.decode("latin-1") for name, value in reversed(scope["headers"])}
        try:
            admin = self._keys.check(headers.get(b"authorization"))
        except ApiError as error:
            await refuse(send, error)
            return
        await self.admit(admin, scope, receive, send)

    async def admit(self, admin: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve an admin who is known already. admin: the id of the key."""
        headers = {name: value.decode("latin-1") for name, value in reversed(scope["headers"])}
        try:
            body = await read_body(receive, headers.get(b"content-length"), MAX_BODY_BYTES)
        except ApiError as error:
            await refuse(send, error)
            return
        except ClientGoneError:
            return  # nobody to answer
        actor = Actor(admin, origin_of(scope, headers.get(b"x-forwarded-for")))
        try:
            # All bodies are JSON, also those of a `curl -d` that does not say so.
            kept = [pair for pair in scope["headers"] if pair[0] != b"content-type"]
            checked = {"headers": [*kept, (b"content-type", b"application/json")]}
            await self._app(
                scope | checked | {"state": {"actor": actor}}, _replaying(body, receive), send
            )
        except Exception:  # FastAPI has answered 500 and raises it again for whoever logs
            logger.exception("an admin's request failed by a fault of the router")


def origin_of(scope: Scope, forwarded: str | None) -> str:
    """Whose connection it is, and for whom its proxies say they ask (anyone can say that)."""
    host = (scope.get("client") or ("unknown",))[0]
    said = f" for {forwarded}" if forwarded else ""
    return f"{host}{said}"[:ORIGIN_LENGTH]


def _replaying(body: bytes, rest: Receive) -> Receive:
    """The body, then what follows it: in the end, that the client has left."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> dict[str, Any]:
        message = next(messages, None)
        return await rest() if message is None else message

    return receive


async def refuse(send: Send, error: ApiError) -> None:
    """Answer with an error."""
    body = error.body()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    start = {"type": "http.response.start", "status": error.status}
    await send(start | {"headers": headers + error.headers()})
    await send({"type": "http.response.body", "body": body})
