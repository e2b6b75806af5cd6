"""Before Ray Serve looks at a request: of a client's headers, only what Fairlane reads goes on.

Ray Serve heeds headers of anyone who asks: a request id for its logs, a time limit, whether to
notice that the client has left, a model and a session to route by; and it answers 500 to one that
is not UTF-8. `deployments/serve.env` has it call `middlewares` wherever it takes HTTP.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.middleware import Middleware

Asgi = Callable[..., Awaitable[None]]
READ = frozenset(
    {
        b"authorization",
        b"content-length",
        b"content-type",
        b"host",
        b"x-forwarded-for",
        b"traceparent",
        b"tracestate",  # heeded only with `tracing.trust_incoming`
    }
)


class StripHeaders:
    """ASGI: hands requests on without the headers that nobody is to heed."""

    def __init__(self, app: Asgi) -> None:
        self._app = app

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if "headers" in scope:
            read = [pair for pair in scope["headers"] if pair[0] in READ]
            scope = scope | {"headers": read}
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """For RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH."""
    return [Middleware(StripHeaders)]
