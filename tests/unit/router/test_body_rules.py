"""Bodies may not hold up a replica's HTTP server, nor send it anywhere."""

from __future__ import annotations

from typing import Any

import pytest

from router.body_rules import BodyRules, asks_prompt_logprobs
from router.errors import ApiError

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
EVERYTHING = BodyRules(allow_chat_template=True, allow_media_options=True, allow_remote_media=True)


def refused(path: str, content: dict[str, Any], rules: BodyRules | None = None) -> str | None:
    """The field that is named in the refusal."""
    with pytest.raises(ApiError) as error:
        (rules or BodyRules()).check(path, content)
    assert error.value.status == 400
    return error.value.param


def part(value: Any, name: str = "image_url") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": name, name: value}]}]}


@pytest.mark.parametrize(
    "field", ["chat_template", "chat_template_kwargs", "media_io_kwargs", "mm_processor_kwargs"]
)
def test_what_steers_the_replicas_server_needs_the_operators_word(field: str) -> None:
    assert refused(CHAT, {field: {"x": 1}}) == field
    EVERYTHING.check(CHAT, {field: {"x": 1}})
    BodyRules().check(CHAT, {field: None})  # as clients send what they leave out


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/", "HTTPS://x", "file:///etc/passwd", " data:,", "//x", "gopher:x"]
)
def test_replicas_fetch_nothing(url: str) -> None:
    for name in ("image_url", "audio_url", "video_url"):
        assert refused(CHAT, part({"url": url}, name)) == name
        assert refused(CHAT, part(url, name)) == name
    assert refused("/v1/messages", part({"type": "url", "url": url}, "source")) == "source"
    EVERYTHING.check(CHAT, part({"url": url}))


def test_media_that_come_with_the_request_are_fine() -> None:
    BodyRules().check(CHAT, part({"url": "data:image/png;base64,AAAA"}))
    BodyRules().check("/v1/messages", part({"type": "base64", "data": "AAAA"}, "source"))


def test_a_tool_may_speak_of_urls() -> None:
    BodyRules().check(CHAT, {"tools": [{"examples": [{"image_url": "https://x/y.png"}]}]})


@pytest.mark.parametrize("n", ["100000", 1e5, True, [2], 129, 2**63])
def test_n_is_bounded_and_an_integer(n: object) -> None:
    assert refused(CHAT, {"n": n}) == "n"
    assert refused(TEXT, {"prompt": "a", "best_of": n}) == "best_of"


def test_prompts_times_n_are_bounded() -> None:
    BodyRules().check(TEXT, {"prompt": ["a"] * 64, "n": 2})
    BodyRules().check(TEXT, {"prompt": [1] * 5000, "n": 128})  # one prompt, in tokens
    assert refused(TEXT, {"prompt": ["a"] * 65, "n": 2}) == "prompt"
    assert refused(TEXT, {"prompt": [[1]] * 129}) == "prompt"


def test_inputs_are_bounded_as_openai_bounds_them() -> None:
    BodyRules().check("/v1/embeddings", {"input": ["a"] * 2048})
    assert refused("/v1/embeddings", {"input": ["a"] * 2049}) == "input"
    assert refused("/v1/rerank", {"query": "a", "documents": ["a"] * 2049}) == "documents"


@pytest.mark.parametrize("field", ["messages", "tools", "structured_outputs"])
def test_what_vllm_takes_the_kind_of_for_granted_has_it(field: str) -> None:
    for strange in (0, True, 1.5, "x"):
        assert refused(CHAT, {field: strange}) == field
    for sound in (None, {"choice": ["a"]} if field == "structured_outputs" else []):
        BodyRules().check(CHAT, {field: sound})


def test_prompt_logprobs_are_recognised_however_they_are_asked_for() -> None:
    assert asks_prompt_logprobs(CHAT, {"prompt_logprobs": 0}) == "prompt_logprobs"
    assert asks_prompt_logprobs(TEXT, {"prompt_logprobs": "1"}) == "prompt_logprobs"
    assert asks_prompt_logprobs(TEXT, {"echo": True, "logprobs": 0}) == "echo"
    assert asks_prompt_logprobs(TEXT, {"echo": "yes", "logprobs": 1}) == "echo"  # true to vLLM
    assert asks_prompt_logprobs(CHAT, {"echo": True}) == "echo"
    for content in (
        {},
        {"echo": True},
        {"echo": False, "logprobs": 5},
        {"logprobs": 5},
        {"prompt_logprobs": None, "echo": None},
    ):
        assert asks_prompt_logprobs(TEXT, content) is None
    assert asks_prompt_logprobs(CHAT, {"logprobs": True, "top_logprobs": 3}) is None


def test_what_vllm_tries_against_many_kinds_is_bounded() -> None:
    """12 kB of it had held up a replica's event loop for eleven seconds. Found by fuzzing."""
    path = "/v1/responses"
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]}
    BodyRules().check(path, {"input": "x"})
    BodyRules().check(path, {"input": [item] * 300})
    assert refused(path, {"input": [item] * 400}) == "input"
    assert refused(path, {"input": ["x"] * 2}) == "input"
    assert refused(path, {"input": [{"content": [{}] * 1000}]}) == "input"
    BodyRules().check(CHAT, {"messages": [item] * 1000})
