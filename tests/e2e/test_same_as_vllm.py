"""The application answers as vLLM's own server does, byte for byte but for names and times."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from loadtests.bench_path import SYSTEMS, Engine, running
from tests.e2e.conftest import App, bearer, free_port

pytestmark = pytest.mark.e2e

# Different in every answer of either server, and a digest of the engine's settings, which name our
# scheduler.
OWN = frozenset(
    {"id", "created", "created_at", "completed_at", "item_id", "request_id", "system_fingerprint"}
)
# Headers that only one of them has: ours, Ray Serve's, who the HTTP server is, and CORS, which
# Fairlane leaves to what stands before it.
OURS = ("x-fairlane-", "x-ratelimit-", "x-request-id")
SERVERS = frozenset({"date", "server", "connection", "transfer-encoding", "content-length", "vary"})

MESSAGES = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello"}]
CHAT: dict[str, Any] = {
    "model": "tiny",
    "messages": MESSAGES,
    "max_tokens": 12,
    "temperature": 0,
    "ignore_eos": True,
}
TEXT: dict[str, Any] = {"model": "tiny", "prompt": "Once", "max_tokens": 8, "temperature": 0}
STREAM = {"stream": True, "stream_options": {"include_usage": True}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
ASKED: dict[str, tuple[str, Any]] = {
    "chat": ("/v1/chat/completions", CHAT),
    "chat with logprobs": ("/v1/chat/completions", CHAT | {"logprobs": True, "top_logprobs": 2}),
    "two chats, a seed": ("/v1/chat/completions", CHAT | {"n": 2, "seed": 5, "temperature": 1}),
    "a stream": ("/v1/chat/completions", CHAT | STREAM),
    "text, echoed": ("/v1/completions", TEXT | {"echo": True, "logprobs": 1}),
    "texts": ("/v1/completions", TEXT | {"prompt": ["Once", "Then"]}),
    "a stream of text": ("/v1/completions", TEXT | STREAM),
    "a response": ("/v1/responses", {"model": "tiny", "input": "Hello", "temperature": 0,
                                     "max_output_tokens": 8}),
    "a message": ("/v1/messages", {"model": "tiny", "messages": MESSAGES[1:], "temperature": 0,
                                   "max_tokens": 8}),
    "tokens": ("/tokenize", {"model": "tiny", "prompt": "Hello"}),
    "a bad parameter": ("/v1/chat/completions", CHAT | {"temperature": -1}),
    "no messages": ("/v1/chat/completions", {"model": "tiny"}),
    "too long": ("/v1/completions", TEXT | {"prompt": "x" * 5000}),
    "a tool without a parser": ("/v1/chat/completions", CHAT | {"tools": [TOOL]}),
}  # fmt: skip


@pytest.fixture(scope="module")
def vllm(app: App, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of vLLM's own server with the application's model and engine settings."""
    engine = dataclasses.replace(Engine.of_config(), model=app.model)
    system = dataclasses.replace(SYSTEMS["vllm"], port=free_port())
    with running(system, engine, tmp_path_factory.mktemp("vllm") / "log"):
        yield system.base_url


@pytest.mark.parametrize("what", ASKED)
def test_the_answer_is_vllms(app: App, vllm: str, what: str) -> None:
    path, body = ASKED[what]
    theirs = httpx.post(f"{vllm}{path}", json=body, timeout=60)
    ours = httpx.post(f"{app.url}{path}", json=body, headers=bearer("alice"), timeout=60)
    assert (ours.status_code, events(ours)) == (theirs.status_code, events(theirs))
    assert headers(ours) == headers(theirs)
    added = {name for name in ours.headers if name not in theirs.headers}
    assert all(name.startswith(OURS) for name in added - SERVERS), added


def events(answer: httpx.Response) -> list[Any]:
    """What it says, without its names and times: the one body, or each event of a stream."""
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return [without_own(answer.json())]
    lines = [line for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "data: [DONE]"
    said = [without_own(json.loads(line.removeprefix("data: "))) for line in lines[:-1]]
    return joined(said)


def joined(said: list[Any]) -> list[Any]:
    """All text in one, and the events without it, once each: a busy server puts several tokens
    into one event."""
    text = ""
    rest: list[Any] = []
    for event in said:
        for choice in event["choices"]:
            holder, name = (choice["delta"], "content") if "delta" in choice else (choice, "text")
            text += holder.pop(name, None) or ""
        if event not in rest:
            rest.append(event)
    return [text, *rest]


def without_own(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: without_own(value) for name, value in content.items() if name not in OWN}
    return [without_own(value) for value in content] if isinstance(content, list) else content


def headers(answer: httpx.Response) -> dict[str, str]:
    """Those that are a server's own affair left out."""
    return {
        name: value
        for name, value in answer.headers.items()
        if name not in SERVERS and not name.startswith(OURS)
    }
