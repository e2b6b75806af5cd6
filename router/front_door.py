"""Before Ray Serve looks at a request: of a client's headers, only what Fairlane reads goes on.

Ray Serve heeds headers of anyone who asks: a request id for its logs, a time limit, whether to
notice that the client has left, a model and a session to route by; and it answers 500 to one that
is not UTF-8. `deployments/serve.env` has it call `middlewares` wherever it takes HTTP.

Here Ray Serve also hands us its own application, and with it the one sign it gives that this
process is to end: its answer to a load balancer (`draining`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.middleware import Middleware

Asgi = Callable[..., Awaitable[None]]
READ = frozenset(
    {b"authorization", b"content-length", b"content-type", b"host", b"x-forwarded-for"}
    # of browsers, for the dashboard
    | {b"accept", b"cookie", b"if-none-match", b"x-fairlane-csrf", b"x-forwarded-proto"}
    # heeded only with `tracing.trust_incoming`
    | {b"traceparent", b"tracestate"}
)


HEALTH = "/-/healthz"
DRAINING = b"DRAINING"

_served: list[Asgi] = []  # Ray Serve's application in this process; the last one counts


class StripHeaders:
    """ASGI: hands requests on without the headers that nobody is to heed."""

    def __init__(self, app: Asgi) -> None:
        self._app = app
        _served[:] = [app]

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if "headers" in scope:
            read = [pair for pair in scope["headers"] if pair[0] in READ]
            scope = scope | {"headers": read}
        await self._app(scope, receive, send)


async def draining() -> bool:
    """Has Ray Serve told this process to end? It asks as a load balancer does, without the network.

    False where Ray Serve does not call `middlewares`.
    """
    if not _served:
        return False
    said: list[bytes] = []

    async def send(message: dict[str, Any]) -> None:
        said.append(message.get("body", b""))

    scope = {"type": "http", "method": "GET", "path": HEALTH, "root_path": "", "headers": []}
    await _served[0](scope, _nothing, send)
    return DRAINING in b"".join(said)


async def _nothing() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


def middlewares() -> list[Middleware]:
    """For RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH."""
    return [Middleware(StripHeaders)]
