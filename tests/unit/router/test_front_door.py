"""Ray Serve sees none of the headers by which a client could steer it."""

from __future__ import annotations

from typing import Any

from ray.serve._private.http_util import validate_http_proxy_callback_return

from router.front_door import middlewares


async def test_only_what_fairlane_reads_goes_on() -> None:
    seen: list[dict[str, Any]] = []

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        seen.append(scope)

    (middleware,) = validate_http_proxy_callback_return(middlewares())
    wanted = [
        *((b"host", b"x"), (b"authorization", b"Bearer sk-1"), (b"content-type", b"a/b")),
        (b"traceparent", b"00-1-2-01"),  # heeded only where that is configured
    ]
    steering = [
        (b"x-request-id", b"\x80"),
        (b"x-request-timeout-seconds", b"0.001"),
        (b"x-request-disconnect-disabled", b"?1"),
        (b"serve_multiplexed_model_id", b"other"),
        (b"\xff", b""),
    ]
    scope = {"type": "http", "headers": [*steering, *wanted]}
    await middleware.cls(app)(scope, None, None)
    assert seen == [{"type": "http", "headers": wanted}]
