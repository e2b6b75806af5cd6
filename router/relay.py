"""Bytes between a replica and a client, unread.

A slow reader stops the replica (its stream's window, `fairness/trunk`), it does not fill memory.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, ExitStack, closing
from typing import Any

import orjson

from router.bodies import Body
from router.errors import not_found
from router.trunks import Answer, Headers, Trunks

logger = logging.getLogger(__name__)

Send = Callable[[dict[str, Any]], Awaitable[None]]
Lifeline = Callable[[], AbstractAsyncContextManager[None]]

# Of the replica's response headers, those that concern the client.
PASSED_HEADERS = frozenset({"content-type", "content-length", "cache-control", "retry-after"})


class ReplicaFailedError(Exception):
    """The replica failed before the first byte of an answer: another may be asked."""


class BrokenAnswerError(Exception):
    """The replica failed in the middle of an answer that cannot be ended properly."""


async def relay(
    trunks: Trunks,
    body: Body,
    send: Send,
    *,
    replica: str,
    url: str,
    path: str,
    headers: Headers,
    lifeline: Lifeline,
    answered: Callable[[], None],
) -> bool:
    """Ask the replica and pass its answer on; was it whole?

    Raises ReplicaFailedError when nothing was sent to the client yet (a 403 is the replica's
    refusal of the grant), ApiError for a path that the model does not have, BrokenAnswerError when
    the connection must be cut to tell the client that its answer is incomplete. A broken event
    stream is ended with an error event instead. `answered` is called when the answer begins.
    """
    with ExitStack() as leaving:
        try:
            async with lifeline():
                answer = await trunks.ask(replica, url, path, headers, body.data)
                leaving.enter_context(closing(answer))
                first = await _inspected(answer, path)
        except OSError as error:
            raise ReplicaFailedError(f"{type(error).__name__}: {error}") from error
        body.release()
        answered()
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [
                    (name.encode("latin-1"), text.encode("latin-1"))
                    for name, text in answer.headers
                    if name in PASSED_HEADERS
                ],
            }
        )
        return await _pass_on(answer, first, send, lifeline)


async def _inspected(answer: Answer, path: str) -> bytes:
    """What was read of an answer to see whether it is the client's."""
    if answer.status == 403:
        reason = (await answer.rest()).decode(errors="replace")
        raise ReplicaFailedError(f"grant refused: {reason}")
    if answer.status != 404:
        return b""
    content = await answer.rest()
    if b'"error"' not in content:
        raise not_found(path)  # vLLM has no such path for this model
    return content


async def _pass_on(answer: Answer, first: bytes, send: Send, lifeline: Lifeline) -> bool:
    try:
        async with lifeline():
            if first:
                await send({"type": "http.response.body", "body": first, "more_body": True})
            more = True
            while more:
                chunk = await answer.read()
                more = not answer.complete
                await send({"type": "http.response.body", "body": chunk, "more_body": more})
        return True
    except OSError as error:
        logger.warning("replica failed in the middle of an answer: %s", error)
        if not dict(answer.headers).get("content-type", "").startswith("text/event-stream"):
            raise BrokenAnswerError from error
        event = error_event("the replica that served this stream failed", "replica_failed")
        await send({"type": "http.response.body", "body": event})
        return False


def error_event(what: str, code: str) -> bytes:
    """The last event of a stream that was cut off."""
    error = {
        "message": f"{what}; what came before is all there is",
        "type": "service_unavailable_error",
        "param": None,
        "code": code,
    }
    return b"\n\ndata: " + orjson.dumps({"error": error}) + b"\n\ndata: [DONE]\n\n"
