"""Other people's programs, and our documentation's examples, against the real application."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import tools
from tests.e2e.conftest import KEYS, ROOT, App
from tests.e2e.recipes import ADDRESS, Recipe, recipes

pytestmark = pytest.mark.e2e

LIMIT_S = 200


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    """What it prints. Fails with what it complained of."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def told(app: App) -> dict[str, str]:
    return {"BASE_URL": f"{app.url}/v1", "KEY": KEYS["alice"]}


def test_openais_sdk_for_node(app: App) -> None:
    script = (tools.HERE / "sdk.mjs").read_text()
    seen = json.loads(
        run("node", "--input-type=module", "-e", script, cwd=tools.node(), **told(app))
    )
    assert seen["usage"]["completion_tokens"] == seen["streamedUsage"]["completion_tokens"] == 12
    assert seen["responses"] == 12
    assert seen["content"]
    assert seen["pieces"] > 5
    assert seen["requestId"] in seen["id"]
    assert seen["models"] == ["tiny"]
    assert seen["refusals"] == {
        "key": ["AuthenticationError", 401, "string"],
        "model": ["NotFoundError", 404, "string"],
        "parameter": ["BadRequestError", 400, "string"],
    }


def test_langchain(app: App) -> None:
    python = tools.python() / "python"
    seen = json.loads(run(python, tools.HERE / "chain.py", cwd=tools.HERE, **told(app)))
    assert seen["content"]
    assert seen["usage"]["output_tokens"] == seen["streamed"]["output_tokens"] == 12
    assert seen["usage"]["input_tokens"] > seen["streamed"]["input_tokens"]
    assert seen["chunks"] > 5
    assert seen["several"] == [12, 12, 12]
    assert seen["refusal"] == 401


def test_locust(app: App) -> None:
    locustfile = ["-f", "loadtests/locustfile.py", "--host", app.url, "--headless", "--json"]
    load = ["--users", "4", "--spawn-rate", "4", "--run-time", "4s", "--stop-timeout", "60s"]
    more = ["--output-tokens", "16"]
    rows = json.loads(run(tools.python() / "locust", *locustfile, *load, *more))
    counts = {row["name"]: (row["num_requests"], row["num_failures"]) for row in rows}
    for client in ("alice", "bob"):
        requests, failures = counts[f"chat {client}"]
        assert requests > 0
        assert failures == 0
        assert counts[f"TTFT {client}"] == (requests, 0)


def test_vllm_bench_serve(app: App, tmp_path: Path) -> None:
    server = ["--backend", "openai-chat", "--endpoint", "/v1/chat/completions"]
    server += ["--base-url", app.url, "--model", "tiny", "--tokenizer", str(app.model)]
    load = ["--dataset-name", "random", "--random-input-len", "64", "--random-output-len", "16"]
    load += ["--ignore-eos", "--num-prompts", "24", "--request-rate", "inf"]
    result = ["--save-result", "--result-dir", str(tmp_path), "--result-filename", "result.json"]
    module = [sys.executable, "-m", "loadtests.vllm_bench"]
    run(*module, *server, *load, *result, OPENAI_API_KEY=KEYS["alice"])
    found = json.loads((tmp_path / "result.json").read_text())
    assert (found["completed"], found["failed"]) == (24, 0)
    assert found["total_output_tokens"] == 24 * 16


def test_the_documentation_has_examples_in_every_language() -> None:
    found = Counter(recipe.language for recipe in recipes())
    assert found["sh"] >= 8
    assert found["python"] > 2
    assert found["js"] > 0


@pytest.mark.parametrize("recipe", list(recipes()), ids=lambda recipe: recipe.where)
def test_an_example_of_the_documentation_works(app: App, recipe: Recipe, tmp_path: Path) -> None:
    text = recipe.text.replace(ADDRESS, app.url)
    if recipe.language == "js":
        said = run("node", "--input-type=module", "-e", text, cwd=tools.node())
    elif recipe.language == "python":
        own = tools.python() / "python" if "langchain" in text else sys.executable
        said = run(own, "-c", text, cwd=tmp_path)
    else:
        (tmp_path / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")
        said = run("bash", "-euo", "pipefail", "-c", text, CURL_HOME=str(tmp_path))
        assert '"error":' not in without_null_errors(said)
    assert said.strip()


def without_null_errors(said: str) -> Any:
    """An answer may say that it has none."""
    return said.replace('"error":null', "").replace('"error": null', "")
