"""Two models and a LoRA adapter in one application, fair across both, on real engines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from tests.e2e.conftest import KEYS, LOCAL, App, serving
from tests.tiny_adapter import write_tiny_adapter

PRICE = 4.0  # of `dear`, next to `cheap`


def two_pools(folder: Path) -> Path:
    """local.yaml with two pools of one replica each; returns the file."""
    content = yaml.safe_load(LOCAL.read_text())
    (args,) = (application["args"] for application in content["applications"])
    pools = []
    for model, price in (("cheap", 1.0), ("dear", PRICE)):
        (pool,) = yaml.safe_load(LOCAL.read_text())["applications"][0]["args"]["pools"]
        pool["llm"]["model_loading_config"]["model_id"] = model
        pool["llm"]["deployment_config"]["num_replicas"] = 1
        pools.append(pool | {"price": price})
    pools[0]["adapters"] = {
        f"cheap-{name}": str(write_tiny_adapter(folder / name, seed))
        for seed, name in enumerate(("poems", "law"))
    }
    pools[0]["llm"]["engine_kwargs"]["max_loras"] = 1  # in a batch: they take turns
    args |= {"pools": pools, "across_pools": {"enabled": True}}
    path = folder / "two-pools.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


pytestmark = [pytest.mark.e2e, pytest.mark.own_application, pytest.mark.long]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    folder = tmp_path_factory.mktemp("two-pools")
    with serving(folder / "serve.log", folder / "home", two_pools(folder)) as app:
        yield app


def ask(app: App, model: str, key: str = "alice", tokens: int = 8) -> dict[str, Any]:
    body = {
        "model": model,
        "prompt": "Hello, you",
        "max_tokens": tokens,
        "temperature": 0,
        "ignore_eos": True,
    }
    answer = app.post("/v1/completions", body, key)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_each_model_is_listed_and_answers_by_its_name(app: App) -> None:
    with openai.OpenAI(base_url=f"{app.url}/v1", api_key=KEYS["alice"]) as client:
        parents = {card.id: getattr(card, "parent", None) for card in client.models.list()}
        assert parents == {
            "cheap": None,
            "dear": None,
            "cheap-poems": "cheap",
            "cheap-law": "cheap",
        }
        assert client.models.retrieve("cheap-law").id == "cheap-law"
    for model in parents:
        answer = ask(app, model)
        assert answer["model"] == model
        assert answer["usage"]["completion_tokens"] == 8


def test_an_unknown_model_is_told_which_there_are(app: App) -> None:
    answer = app.post("/v1/completions", {"model": "cheap-none", "prompt": "Hello"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert "serves: cheap, dear, cheap-law, cheap-poems" in answer.json()["error"]["message"]


def test_an_adapter_changes_what_the_model_says(app: App) -> None:
    texts = {
        model: ask(app, model, tokens=24)["choices"][0]["text"]
        for model in ("cheap", "dear", "cheap-poems", "cheap-law")
    }
    assert texts["cheap"] == texts["dear"]  # the same weights
    assert len(set(texts.values())) == 3, texts
    count = app.post("/tokenize", {"model": "cheap-law", "prompt": "Hello"}).json()["count"]
    assert count == len("Hello")


def test_adapters_that_do_not_fit_in_one_batch_take_turns(app: App) -> None:
    models = ["cheap-poems", "cheap-law", "cheap"] * 6
    clients = ["alice", "bob"] * 9
    with ThreadPoolExecutor(len(models)) as threads:
        answers = list(threads.map(lambda model, who: ask(app, model, who, 30), models, clients))
    assert [answer["model"] for answer in answers] == models
    assert {answer["usage"]["completion_tokens"] for answer in answers} == {30}


def test_usage_is_told_by_model_and_adapters_count_as_theirs(app: App) -> None:
    before = by_model(app, "bob")
    for model, times in (("dear", 1), ("cheap", 1), ("cheap-law", 2)):
        for _ in range(times):
            ask(app, model, "bob")
    app.idle()
    after = by_model(app, "bob")
    assert {m: after[m] - before.get(m, 0) for m in after} == {"cheap": 24, "dear": 8}


def by_model(app: App, client: str) -> dict[str, int]:
    answer = app.get(f"/admin/usage?by=model&client={client}", "admin")
    return {row["model"]: row["output_tokens"] for row in answer.json()["usage"]}


def test_the_admin_api_tells_each_pool(app: App) -> None:
    policies = app.get("/admin/queue/policy", "admin").json()
    assert policies == {"cheap": "vtc", "dear": "vtc"}
    ready = app.get("/readyz").json()
    assert ready["ready"]
    assert ready["replicas"] == {"cheap": 1, "dear": 1}


def test_what_a_client_has_in_one_pool_counts_in_the_other_by_price(app: App) -> None:
    before = counters(app)
    for _ in range(3):
        ask(app, "dear", "carol", tokens=100)
    app.idle()
    received = 3 * (len("Hello, you") + 2 * 100) / 2  # by her weight
    expected = {"dear": received, "cheap": PRICE * received}
    deadline = time.monotonic() + 30
    while True:
        now = counters(app)
        grown = {model: now[model] - before[model] for model in now}
        if grown == pytest.approx(expected):
            return
        assert time.monotonic() < deadline, (before, now, expected)
        time.sleep(0.1)


def counters(app: App) -> dict[str, float]:
    """carol's, in each pool."""
    found = {}
    for model in ("cheap", "dear"):
        answer = app.get(f"/admin/queue/clients?model={model}", "admin")
        (found[model],) = (
            row["counter"] for row in answer.json()["clients"] if row["client"] == "carol"
        )
    return found
