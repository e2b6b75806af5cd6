"""Bytes between a replica and a client, unread.

Costs one read and one write per chunk (about 40 microseconds); a slow reader stops the reading
from the replica (backpressure), it does not fill memory.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from router.bodies import Body
from router.errors import not_found

logger = logging.getLogger(__name__)

Send = Callable[[dict[str, Any]], Awaitable[None]]
Lifeline = Callable[[], AbstractAsyncContextManager[None]]

# Of the replica's response headers, those that concern the client.
PASSED_HEADERS = frozenset({"content-type", "content-length", "cache-control", "retry-after"})
CONNECT_TIMEOUT_S = 5.0


class ReplicaFailedError(Exception):
    """The replica failed before the first byte of an answer: another may be asked."""


class BrokenAnswerError(Exception):
    """The replica failed in the middle of an answer that cannot be ended properly."""


def open_session() -> aiohttp.ClientSession:
    """Connections to replicas, kept and reused; as many as there are streams."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=300),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent",),
    )


async def relay(
    session: aiohttp.ClientSession,
    url: str,
    body: Body,
    headers: dict[str, str],
    send: Send,
    *,
    lifeline: Lifeline,
    answered: Callable[[], None],
) -> None:
    """Ask the replica and pass its answer on.

    Raises ReplicaFailedError when nothing was sent to the client yet (a 403 is the replica's
    refusal of the grant), ApiError for a path that the model does not have, BrokenAnswerError when
    the connection must be cut to tell the client that its answer is incomplete. A broken event
    stream is ended with an error event instead. `answered` is called when the answer begins.
    """
    try:
        async with lifeline():
            response = await session.post(
                url, data=body.data, headers=headers, allow_redirects=False
            )
            if response.status == 403:
                raise ReplicaFailedError(f"grant refused: {await response.text()}")
            if response.status == 404 and b'"error"' not in await response.read():
                raise not_found(urlsplit(url).path)  # vLLM has no such path for this model
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise ReplicaFailedError(f"{type(error).__name__}: {error}") from error
    body.release()
    answered()
    async with response:
        passed = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in response.headers.items()
            if name.lower() in PASSED_HEADERS
        ]
        await send(
            {
                "type": "http.response.start",
                "status": response.status,
                "headers": passed,
            }
        )
        try:
            async with lifeline():
                if response.status == 404:
                    await send(
                        {
                            "type": "http.response.body",
                            "body": await response.read(),
                            "more_body": True,
                        }
                    )
                async for chunk in response.content.iter_any():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            logger.warning("replica failed in the middle of an answer: %s", error)
            if response.content_type != "text/event-stream":
                raise BrokenAnswerError from error
            await send({"type": "http.response.body", "body": _error_event(), "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def _error_event() -> bytes:
    error = {
        "message": "the replica that served this stream failed; what came before is all there is",
        "type": "service_unavailable_error",
        "param": None,
        "code": "replica_failed",
    }
    return b"\n\ndata: " + orjson.dumps({"error": error}) + b"\n\ndata: [DONE]\n\n"
