"""What OpenAI's own client makes of the real application: answers, streams, and typed errors."""

from __future__ import annotations

from typing import Any

import pytest
from openai import (
    APIStatusError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    OpenAI,
)

from tests.e2e.conftest import KEYS, App

pytestmark = pytest.mark.e2e

MESSAGES: Any = [{"role": "user", "content": "Hello"}]


def client(app: App, key: str = KEYS["alice"]) -> OpenAI:
    return OpenAI(base_url=f"{app.url}/v1", api_key=key, max_retries=0)


def test_chat_with_the_parameters_people_use(app: App) -> None:
    raw = client(app).chat.completions.with_raw_response.create(
        model="tiny",
        messages=[{"role": "system", "content": "Be short."}, *MESSAGES],
        max_completion_tokens=6,
        temperature=0.5,
        top_p=0.9,
        seed=1,
        stop=["zzzz"],
        logprobs=True,
        top_logprobs=2,
        user="somebody",
        n=2,
    )
    answer = raw.parse()
    assert (len(answer.choices), answer.model, answer.object) == (2, "tiny", "chat.completion")
    assert answer.choices[0].logprobs is not None
    assert raw.headers["x-fairlane-request-id"] in answer.id
    assert int(raw.headers["x-fairlane-queue-wait-ms"]) >= 0


def test_text_completions_in_batches_and_streams(app: App) -> None:
    openai = client(app)
    answer = openai.completions.create(model="tiny", prompt=["a", "b"], max_tokens=3, echo=True)
    assert [choice.text[0] for choice in answer.choices] == ["a", "b"]
    chunks = list(openai.completions.create(model="tiny", prompt="a", max_tokens=5, stream=True))
    assert chunks[-1].choices[0].finish_reason in ("length", "stop")


async def test_the_asynchronous_client_streams(app: App) -> None:
    async with AsyncOpenAI(base_url=f"{app.url}/v1", api_key=KEYS["bob"], max_retries=0) as openai:
        stream = await openai.chat.completions.create(
            model="tiny", messages=MESSAGES, max_tokens=8, stream=True
        )
        said = [chunk.choices[0].delta.content async for chunk in stream if chunk.choices]
    assert any(said)


@pytest.mark.parametrize(
    ("error", "change"),
    [
        (BadRequestError, {"temperature": -1}),
        (BadRequestError, {"n": 1000}),
        (BadRequestError, {"extra_body": {"chat_template": "{{ messages }}"}}),
        (BadRequestError, {"extra_body": {"chat_template_kwargs": {"a": 1}}}),
        (NotFoundError, {"model": "gpt-9"}),
    ],
)
def test_refusals_are_of_the_type_that_programs_catch(
    app: App, error: type[APIStatusError], change: dict[str, Any]
) -> None:
    asked: dict[str, Any] = {"model": "tiny", "messages": MESSAGES, "max_tokens": 2} | change
    with pytest.raises(error) as raised:
        client(app).chat.completions.create(**asked)
    assert raised.value.response.headers["x-fairlane-request-id"]
    assert isinstance(raised.value.body, dict)
    assert raised.value.body["message"]


def test_a_remote_image_is_refused_before_anything_is_fetched(app: App) -> None:
    image = {"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest/meta-data"}}
    messages: Any = [{"role": "user", "content": [image]}]
    with pytest.raises(BadRequestError, match="data: URL") as raised:
        client(app).chat.completions.create(model="tiny", messages=messages)
    assert raised.value.param == "image_url"


def test_a_wrong_key_is_an_authentication_error_everywhere(app: App) -> None:
    stranger = client(app, "sk-wrong")
    with pytest.raises(AuthenticationError):
        stranger.models.list()
    with pytest.raises(AuthenticationError):
        stranger.embeddings.create(model="tiny", input="a")
