"""Request bodies: read within bounds, checked, and stripped of what is not the client's to say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson

from fairness.store.contract import PRIORITY_LIMIT
from router.body_rules import BodyRules, asks_prompt_logprobs
from router.errors import ApiError, too_large, too_slow

# Fields by which a body could claim another place in the queue, another identity or another
# request's id, or reach into how replicas talk to each other. (`priority` is read here.)
RESERVED_FIELDS = frozenset(
    {"priority", "vllm_xargs", "request_id", "kv_transfer_params", "ec_transfer_params"}
)
# Eight MiB of `[[],[],...` take a second to parse, in which the router serves nobody; within this
# it is a tenth. (Brackets in texts count too; a prompt has fewer.)
MAX_BRACKETS = 250_000
DEFAULT_RULES = BodyRules()
OUTPUT_FIELDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
MAX_OUTPUT = 2**31  # more says nothing
SILENT_PATHS = frozenset({"/v1/embeddings", "/v1/score", "/v1/rerank"})  # make no tokens

Receive = Callable[[], Awaitable[dict[str, Any]]]


class ClientGoneError(Exception):
    """The client closed its connection; nobody is there to answer."""


@dataclass(slots=True)
class Body:
    """A checked body: the bytes to send on, the model they ask for, the request's priority among
    its client's own, how many tokens the engine may make for it (None: it does not say), and the
    field that asks for log probabilities of the prompt (None: none does)."""

    data: bytes
    model: str
    priority: int = 0
    max_output: int | None = None
    prompt_logprobs: str | None = None

    def release(self) -> None:
        """Forget the bytes: a stream may go on for long after they were sent."""
        self.data = b""


async def read_body(
    receive: Receive, content_length: str | None, limit: int, timeout_s: float = 60.0
) -> bytes:
    """The whole body. Raises ApiError 413 before more than `limit` bytes are held, and 408 when it
    has not come within `timeout_s`: who sends slowly holds a connection, not for ever."""
    if content_length is not None and _says_more(content_length, limit):
        raise too_large(limit)
    try:
        async with asyncio.timeout(timeout_s):
            return await _whole(receive, limit)
    except TimeoutError:
        raise too_slow(timeout_s) from None


def _says_more(content_length: str, limit: int) -> bool:
    digits = content_length.lstrip("0")
    if not digits.isdecimal():  # not isdigit(), which "²" is, too
        return False  # the server has refused it, or will count for itself
    return len(digits) > len(str(limit)) or int(digits) > limit


async def _whole(receive: Receive, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def parse_object(data: bytes) -> dict[str, Any]:
    """A JSON object. Raises ApiError 400."""
    if data.count(b"[") + data.count(b"{") > MAX_BRACKETS:
        raise ApiError(400, f"the request body has more than {MAX_BRACKETS} objects and arrays")
    try:
        content = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"the request body is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ApiError(400, "the request body must be a JSON object")
    return content


def check_body(data: bytes, path: str = "", rules: BodyRules = DEFAULT_RULES) -> Body:
    """Parse, check and strip the body of a request to `path`. Raises ApiError 400. Bytes are sent
    on as they came if nothing is cut."""
    content = parse_object(data)
    model = content.get("model")
    if not isinstance(model, str) or not model:
        raise ApiError(400, "name a model: 'model' must be a non-empty string", param="model")
    rules.check(path, content)
    priority = _priority(content.get("priority"))
    max_output = _max_output(path, content)
    if not RESERVED_FIELDS.isdisjoint(content):
        data = _without_reserved(data)
    return Body(data, model, priority, max_output, asks_prompt_logprobs(path, content))


def _priority(value: Any) -> int:
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > PRIORITY_LIMIT:
        raise ApiError(
            400,
            f"'priority' must be an integer from -{PRIORITY_LIMIT} to {PRIORITY_LIMIT}; the "
            "smallest goes first among your own requests",
            param="priority",
        )
    return value


def _max_output(path: str, content: dict[str, Any]) -> int | None:
    if path in SILENT_PATHS:
        return 0
    copies = content.get("n")
    for name in OUTPUT_FIELDS:
        value = content.get(name)
        if isinstance(value, int) and 0 < value <= MAX_OUTPUT:
            return value * (copies if isinstance(copies, int) and copies > 0 else 1)
    return None


def _without_reserved(data: bytes) -> bytes:
    """Cut the reserved fields. By the standard library, which keeps integers of any size (orjson
    makes floats of those beyond 64 bits). Raises ApiError 400."""
    try:
        content = json.loads(data)
        return json.dumps({k: v for k, v in content.items() if k not in RESERVED_FIELDS}).encode()
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"the request body cannot be written again: {error}") from None
