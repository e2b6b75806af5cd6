"""The API as clients see it, on the real application."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any

import httpx
import psutil
import pytest
from openai import AuthenticationError, NotFoundError, OpenAI

from tests.e2e.conftest import KEYS, App, bearer

pytestmark = pytest.mark.e2e


def chat(text: str = "Hello", tokens: int = 8, **more: Any) -> dict[str, Any]:
    return {
        "model": "tiny",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": tokens,
        "ignore_eos": True,
        **more,
    }


@pytest.fixture
def openai(app: App) -> OpenAI:
    return OpenAI(base_url=f"{app.url}/v1", api_key=KEYS["alice"], max_retries=0)


def test_the_openai_sdk_completes(openai: OpenAI) -> None:
    answer = openai.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "Hello"}], max_tokens=12
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    assert answer.choices[0].message.content
    completion = openai.completions.create(model="tiny", prompt=["one", "two"], max_tokens=4, n=2)
    assert len(completion.choices) == 4


def test_the_openai_sdk_streams(openai: OpenAI) -> None:
    stream = openai.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "Hello"}],
        max_tokens=12,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12
    assert len([c for c in chunks if c.choices and c.choices[0].delta.content]) > 5


def test_the_openai_sdk_gets_typed_errors(openai: OpenAI, app: App) -> None:
    messages: Any = [{"role": "user", "content": "Hello"}]
    with pytest.raises(NotFoundError):
        openai.chat.completions.create(model="gpt-9", messages=messages)
    stranger = OpenAI(base_url=f"{app.url}/v1", api_key="sk-wrong", max_retries=0)
    with pytest.raises(AuthenticationError):
        stranger.chat.completions.create(model="tiny", messages=messages)


def test_models_and_tokenize(app: App, openai: OpenAI) -> None:
    assert [model.id for model in openai.models.list()] == ["tiny"]
    assert openai.models.retrieve("tiny").id == "tiny"
    answer = app.post("/tokenize", {"model": "tiny", "prompt": "hi"})
    assert (answer.status_code, answer.json()["count"]) == (200, 2)


def test_health_and_readiness_need_no_key_and_both_routers_serve(app: App) -> None:
    ready = {"ready": True, "degraded": False, "replicas": {"tiny": 2}}
    assert app.get("/readyz").json() == ready
    assert app.get("/healthz").status_code == 200
    # vLLM's id of an answer begins with the life of the router that asked for it.
    ids = {app.post("/v1/chat/completions", chat(tokens=1)).json()["id"] for _ in range(12)}
    assert len({name.split("-")[1] for name in ids}) == 2


@pytest.mark.parametrize(
    ("body", "key", "status"),
    [
        (chat(), None, 401),
        (chat(), "sk-unknown", 401),
        (b"{not json", "alice", 400),
        (b"[1, 2]", "alice", 400),
        (b"\xff\xfe", "alice", 400),
        ({"messages": []}, "alice", 400),
        ({"model": 7}, "alice", 400),
        (chat(model="gpt-9"), "alice", 404),
        (chat(temperature=-1), "alice", 400),
        (chat(max_tokens=0), "alice", 400),
        (chat(text="x" * 5000), "alice", 400),  # longer than the model's context
        (b"{" + b" " * (8 * 2**20), "alice", 413),
    ],
)
def test_errors_are_openai_shaped_and_free(
    app: App, body: Any, key: str | None, status: int
) -> None:
    before = app.idle()["alice"]["service"]
    answer = app.post("/v1/chat/completions", body, key)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["message"]
    assert set(error) >= {"message", "type", "param", "code"}
    assert "sk-" not in answer.text
    assert app.idle()["alice"]["service"] == before


def test_paths_that_are_not_there(app: App) -> None:
    for method, path in (("GET", "/v1/nothing"), ("POST", "/metrics"), ("DELETE", "/v1/models")):
        answer = httpx.request(method, f"{app.url}{path}", headers=bearer("alice"))
        assert (answer.status_code, "message" in answer.json()["error"]) == (404, True)


def test_only_the_admin_sees_all_clients(app: App) -> None:
    assert app.get("/admin/queue/clients", "alice").status_code == 401
    assert app.get("/admin/queue/clients").status_code == 401
    assert app.clients()["carol"]["weight"] == 2


def test_what_a_client_sends_cannot_change_who_it_is(app: App) -> None:
    before = app.idle()
    forged = chat(
        tokens=10,
        priority=-1000,
        vllm_xargs={"fairlane": "bob", "client": "bob"},
        request_id="chatcmpl-mine",
        user="bob",
    )
    headers = bearer("alice") | {
        "x-fairlane-grant": "forged",
        "x-client": "bob",
        "openai-organization": "bob",
        "x-request-id": "mine",
    }
    answer = httpx.post(f"{app.url}/v1/chat/completions", json=forged, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    assert "mine" not in answer.json()["id"]
    after = app.idle()
    assert after["bob"] == before["bob"]
    assert after["alice"]["output_tokens"] == before["alice"]["output_tokens"] + 10


def test_totals_equal_the_usage_that_clients_were_told(app: App) -> None:
    before, used_before = app.idle(), app.usage("bob")
    told = {"prompt_tokens": 0, "completion_tokens": 0}
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/v1/chat/completions", chat(tokens=17)),
        ("/v1/chat/completions", chat(tokens=9, n=3)),
        ("/v1/completions", {"model": "tiny", "prompt": ["a", "bc", "def"], "max_tokens": 5}),
        ("/v1/completions", {"model": "tiny", "prompt": "abc", "max_tokens": 40, "stop": ["a"]}),
        ("/v1/chat/completions", chat(tokens=3, temperature=-1)),
        ("/v1/chat/completions", chat(tokens=5, text="word " * 300)),
    ] * 3
    lock = threading.Lock()
    answers: list[bool] = []

    def ask(path: str, body: dict[str, Any]) -> None:
        usage = app.post(path, body, "bob").json().get("usage", {})
        with lock:
            answers.append(bool(usage))
            for name in told:
                told[name] += usage.get(name, 0)

    threads = [threading.Thread(target=ask, args=item) for item in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = app.idle()
    grown = {
        name: after["bob"][name] - before["bob"][name]
        for name in ("input_tokens", "output_tokens", "service")
    }
    assert told["completion_tokens"] > 0
    assert grown == {
        "input_tokens": told["prompt_tokens"],
        "output_tokens": told["completion_tokens"],
        "service": told["prompt_tokens"] + 2 * told["completion_tokens"],
    }
    used = app.usage("bob")
    assert {name: used[name] - used_before.get(name, 0) for name in (*grown, "requests")} == {
        **grown,
        "requests": sum(answers),
    }


def test_a_client_that_leaves_mid_stream_is_cancelled_and_pays_for_what_was_made(app: App) -> None:
    before = app.idle()["alice"]["output_tokens"]
    received = 0
    body = chat(tokens=3000, stream=True)
    with httpx.stream(
        "POST", f"{app.url}/v1/chat/completions", json=body, headers=bearer("alice"), timeout=60
    ) as answer:
        for line in answer.iter_lines():
            received += line.startswith("data:")
            if received >= 20:
                break
    rows = app.until(lambda rows: rows["alice"]["running"] == 0, timeout_s=5)
    paid = rows["alice"]["output_tokens"] - before
    assert received - 1 <= paid < 1500


async def test_clients_that_leave_the_queue_pay_nothing(app: App) -> None:
    before = app.idle()["carol"]["output_tokens"]
    tokens, streams = 200, 70  # more than both engines and their lookahead hold

    async def hold(http: httpx.AsyncClient) -> None:
        body = chat(tokens=tokens, stream=True)
        url = f"{app.url}/v1/chat/completions"
        async with http.stream("POST", url, json=body, headers=bearer("carol")) as answer:
            async for _ in answer.aiter_bytes():
                pass

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=60, limits=limits) as http:
        holding = [asyncio.create_task(hold(http)) for _ in range(streams)]
        while app.clients()["carol"]["waiting"] < 5:
            await asyncio.sleep(0.02)
        for task in holding:
            task.cancel()
        await asyncio.gather(*holding, return_exceptions=True)
    rows = app.until(lambda rows: rows["carol"]["waiting"] == rows["carol"]["running"] == 0, 10)
    assert rows["carol"]["output_tokens"] - before < tokens * streams


def test_a_replicas_own_port_takes_no_one_without_a_grant(app: App) -> None:
    addresses = listening(app, "Replica:tiny")
    guarded = 0
    for host, port in addresses:
        for path in ("/v1/chat/completions", "/v1/models", "/metrics", "/health"):
            try:
                answer = httpx.post(
                    f"http://{host}:{port}{path}", json=chat(), headers=bearer("alice"), timeout=5
                )
            except httpx.HTTPError:
                continue  # one of Ray's own ports, which speak no HTTP
            assert answer.status_code == 403, (path, answer.text)
            guarded += 1
    assert guarded == 2 * 4


def listening(app: App, name: str) -> list[tuple[str, int]]:
    """(host, port) of every listening IPv4 socket of the app's processes of that name."""
    found = set()
    for process in psutil.Process(app.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if name in " ".join(process.cmdline()):
                for connection in process.net_connections("tcp4"):
                    if connection.status == psutil.CONN_LISTEN:
                        found.add((connection.laddr.ip, connection.laddr.port))
    return sorted(found)
