"""What the configuration says of explaining, tracing and logging."""

from __future__ import annotations

import argparse
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from deployments.admin.api import AdminApi
from deployments.admin.explain import explain, requests
from deployments.app import _traced
from deployments.config import AppConfig, TracingConfig
from router.watch import TracingSettings, WatchSettings

URL = "http://collector:4318/v1/traces"
VARIABLES = (
    *("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    "OTEL_SDK_DISABLED",
)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def config(**more: Any) -> AppConfig:
    llm = {"model_loading_config": {"model_id": "m", "model_source": "org/m"}}
    return AppConfig.model_validate({"pools": [{"llm": llm}], **more})


def engine_of(**tracing: Any) -> tuple[Any, dict[str, str]]:
    """Where vLLM's spans go, and its environment."""
    llm = _traced({"engine_kwargs": {}}, TracingConfig(**tracing))
    environment = llm.get("runtime_env", {}).get("env_vars", {})
    return llm["engine_kwargs"].get("otlp_traces_endpoint"), environment


def test_by_default_requests_are_explained_and_nothing_is_traced() -> None:
    assert config().watch_settings() == WatchSettings(1000, 100, False, None)
    assert engine_of() == (None, {})


def test_traces_go_on_in_vllm_unless_told_otherwise() -> None:
    tracing = {"endpoint": URL, "sample": 0.5, "trust_incoming": True}
    app = config(tracing=tracing)
    assert app.watch_settings().tracing == TracingSettings(URL, 0.5, True)
    assert engine_of(**tracing) == (URL, {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"})
    assert engine_of(**tracing, engine=False) == (None, {})
    own = {"engine_kwargs": {"otlp_traces_endpoint": "grpc://own"}}
    assert _traced(own, TracingConfig(**tracing)) == own


def test_the_standard_environment_names_the_collector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318/")
    assert TracingConfig().resolved() == "http://all:4318/v1/traces"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4318/v1/traces")
    assert TracingConfig().resolved() == "http://traces:4318/v1/traces"
    assert TracingConfig(endpoint=URL).resolved() == URL
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert TracingConfig(endpoint=URL).resolved() is None


def test_a_collector_is_spoken_to_by_http() -> None:
    with pytest.raises(ValidationError):
        TracingConfig(endpoint="collector:4317")


def test_the_commands_print_words_or_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "request": "a-1", "client": "bob", "model": "m", "received_at": "2026-11-18T11:06:40Z",
        "state": "done", "status": 200, "waited_ms": 1.5, "ended_ms": 9.0, "replica": "r",
        "input_tokens": 1, "output_tokens": 2, "service": 5.0,
    }  # fmt: skip
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        if "explain" in request.url.path:
            return httpx.Response(200, json={"account": ["It waited.", "It was answered."]})
        return httpx.Response(200, json={"requests": [row]})

    api = AdminApi("http://fairlane", "sk", httpx.MockTransport(answer))
    explain(api, argparse.Namespace(request="a-1", json=False))
    assert capsys.readouterr().out == "It waited.\nIt was answered.\n"
    requests(api, argparse.Namespace(client="bob", limit=5, json=False))
    assert "a-1" in capsys.readouterr().out
    assert asked == [
        "http://fairlane/admin/explain/a-1",
        "http://fairlane/admin/requests?client=bob&limit=5",
    ]
