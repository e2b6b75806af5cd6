"""What the real application tells of a request: its explanation, its trace into vLLM, its log
lines."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import App
from tests.otlp_collector import Collector, attributes

pytestmark = pytest.mark.e2e

SECRET = "a-prompt-that-nobody-is-to-see"
SESSIONS = Path("/tmp/ray")  # of Ray; each is named by when it began
RECENT = 4  # sessions: no more begin while one test session lasts


def asked(app: App, tokens: int = 6) -> dict[str, Any]:
    """A request's explanation, once it is settled."""
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": SECRET}],
        "max_tokens": tokens,
        "ignore_eos": True,
    }
    answer = app.post("/v1/chat/completions", body, "carol")
    assert answer.status_code == 200, answer.text
    request, usage = answer.headers["x-fairlane-request-id"], answer.json()["usage"]
    deadline = time.monotonic() + 60
    while True:
        # Either router may be asked: they share what they know.
        told = app.get(f"/admin/explain/{request}", "admin")
        if told.is_success and told.json()["grants"][-1]["end"] is not None:
            found: dict[str, Any] = told.json()
            end = found["grants"][-1]["end"]
            assert (end["input_tokens"], end["output_tokens"]) == (
                usage["prompt_tokens"],
                usage["completion_tokens"],
            )
            return found
        assert time.monotonic() < deadline, told.text
        time.sleep(0.1)


def test_a_request_is_explained_with_what_it_cost(app: App) -> None:
    told = asked(app)
    (grant,) = told["grants"]
    end = grant["end"]
    assert (told["client"], told["state"], told["status"]) == ("carol", "done", 200)
    assert end["service"] == end["input_tokens"] + 2 * end["output_tokens"]
    assert end["correction"] == pytest.approx(end["service"] - grant["charged"]["service"])
    assert told["account"][-1].startswith("The replica settled it")
    # The other router may be asked: it learns of it a second later.
    deadline = time.monotonic() + 60
    while True:
        listed = app.get("/admin/requests?client=carol", "admin").json()["requests"]
        if told["request"] in [row["request"] for row in listed]:
            break
        assert time.monotonic() < deadline, listed
        time.sleep(0.1)


def test_its_trace_goes_on_in_vllm(app: App, collector: Collector) -> None:
    told = asked(app, tokens=7)

    def of_it(found: list[Any]) -> dict[str, Any]:
        mine = (span for span in found if span.trace_id.hex() == told["trace_id"])
        return {span.name: span for span in mine}

    wanted = {"fairlane.queue", "fairlane.grant", "fairlane.relay", "llm_request"}
    collector.until(lambda found: len(of_it(found).keys() & wanted) == 4 and len(of_it(found)) >= 5)
    spans = of_it(collector.spans())
    root = spans["POST /v1/chat/completions"]
    assert spans["fairlane.relay"].parent_span_id == root.span_id
    assert spans["llm_request"].parent_span_id == spans["fairlane.relay"].span_id
    assert attributes(spans["llm_request"])["gen_ai.usage.completion_tokens"] == 7
    assert attributes(root)["gen_ai.usage.output_tokens"] == 7
    assert not any(SECRET.encode() in body for body in collector.raw)


def test_the_logs_know_it_and_not_what_it_said(app: App) -> None:
    told = asked(app)
    # The application's session: others may have begun since, and ended.
    recent = sorted(SESSIONS.glob("session_2*"))[-RECENT:]
    lines: list[dict[str, Any]] = []
    deadline = time.monotonic() + 30
    while not lines:
        assert time.monotonic() < deadline
        for file in (file for session in recent for file in session.glob("logs/worker-*.err")):
            found = [
                json.loads(line)
                for line in file.read_text(errors="replace").splitlines()
                if told["request"] in line and line.startswith("{")
            ]
            if found:
                lines, logs = lines + found, file.parent
        time.sleep(0.2)
    (access,) = [line for line in lines if line["logger"] == "fairlane.access"]
    assert (access["client"], access["state"]) == ("carol", "done")
    for file in (file for file in logs.rglob("*") if file.is_file()):
        said = file.read_bytes()
        assert SECRET.encode() not in said, file
        assert b"sk-local-" not in said, file
