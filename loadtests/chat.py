"""One streaming chat over HTTP: sent, timed and counted.

What a chunk costs decides how much load one process can make, so chunks are counted, not read
(`loadtests.sse`). A request's true token counts come from the usage event at its end. A request
that was cut before has counted events instead: one event is about one token.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from loadtests.records import RequestRecord
from loadtests.sse import EventCounter, openai_error_type

CHAT_PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Chat:
    """What to ask: one user message, an answer of at most ``max_tokens``.

    ``client`` is the name to report it under. ``ignore_eos`` makes the answer exactly that long
    on servers that know the field (vLLM's extension). ``abort_after_events`` hangs up after that
    many events, ``abort_after_s`` after so many seconds, whatever came. ``headers`` are sent
    besides the key.
    """

    client: str
    api_key: str | None
    prompt: str
    max_tokens: int
    ignore_eos: bool = True
    abort_after_events: int | None = None
    abort_after_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self, model: str) -> bytes:
        """Return the request's body."""
        content: dict[str, Any] = {
            "model": model,
            "messages": [{"role": "user", "content": self.prompt}],
            "max_tokens": self.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.ignore_eos:
            content["ignore_eos"] = True
        return json.dumps(content).encode()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model on a server. ``now`` tells the time that records are kept in."""

    session: aiohttp.ClientSession
    base_url: str
    model: str
    now: Callable[[], float]

    async def ask(self, chat: Chat, record: RequestRecord) -> None:
        """Ask, listen to the end, and write into ``record`` what happens as it happens.

        Raises aiohttp.ClientError or OSError when the connection fails; a refusal or an error
        inside the stream is recorded instead.
        """
        body = chat.body(self.model)
        url = self.base_url.rstrip("/") + CHAT_PATH
        record.sent = self.now()
        headers = {**request_headers(chat.api_key), **chat.headers}
        async with self.session.post(url, data=body, headers=headers) as answer:
            record.status = answer.status
            if answer.status >= 400:
                record.error, record.error_type = await _refusal(answer)
                record.retry_after = _seconds(answer.headers.get("Retry-After"))
                return
            await self._receive(chat, answer, record)

    async def _receive(
        self, chat: Chat, answer: aiohttp.ClientResponse, record: RequestRecord
    ) -> None:
        counter = EventCounter()
        now = self.now
        async for data in answer.content.iter_any():
            began = counter.feed(data)
            if began:
                record.chunk_times.append(now())
                record.chunk_events.append(began)
            if chat.abort_after_events and counter.events >= chat.abort_after_events:
                # Leaving the response unread makes aiohttp close the connection.
                answer.close()
                record.aborted = True
                return
        end = counter.end()
        record.complete = end.complete
        record.input_tokens = end.input_tokens
        record.output_tokens = end.output_tokens
        record.error, record.error_type = end.error, end.error_type
        if not end.complete and end.error is None:
            record.error = "the stream ended without [DONE]"


@contextlib.asynccontextmanager
async def http_session(open_limit: int) -> AsyncIterator[aiohttp.ClientSession]:
    """Yield a session that never makes a request wait for another's connection."""
    connector = aiohttp.TCPConnector(limit=open_limit + 16)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield session


async def first_model(session: aiohttp.ClientSession, base_url: str, api_key: str | None) -> str:
    """Return the name of the first model the server lists. Raises aiohttp.ClientError."""
    url = base_url.rstrip("/") + "/v1/models"
    async with session.get(url, headers=request_headers(api_key)) as answer:
        answer.raise_for_status()
        listed = await answer.json()
    return str(listed["data"][0]["id"])


def request_headers(api_key: str | None) -> dict[str, str]:
    """Return the headers of a request with this key."""
    headers = {"Content-Type": "application/json"}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    return headers


async def _refusal(answer: aiohttp.ClientResponse) -> tuple[str, str | None]:
    """Read what a refusal says, and its type where it has OpenAI's shape."""
    text = (await answer.content.read(4096)).decode(errors="replace")
    error_type = None
    with contextlib.suppress(ValueError, KeyError, TypeError):
        content = json.loads(text)
        error_type = openai_error_type(content)
        text = str(content["error"]["message"])
    return f"{answer.status}: {text[:300]}", error_type


def _seconds(retry_after: str | None) -> float | None:
    # The header's other form, a date, is not worth a parser here: the caller has a default.
    with contextlib.suppress(ValueError):
        return float(retry_after) if retry_after is not None else None
    return None
