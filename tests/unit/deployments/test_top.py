"""`fairlane top` on an admin API that is played over HTTP."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx
import pytest
from rich.console import Console

from deployments import top
from deployments.admin.api import AdminApi, CommandError
from deployments.admin.watching import bar, screen, short, verdict

RATES = {"service_per_s": 100.0, "input_per_s": 40.0, "cached_per_s": 0.0, "output_per_s": 30.0}
FACTS = {"slots": 8, "kv_tokens": 1000, "kv_use": 0.25, "preemptions": 2}


def client(name: str, rate: float, counter: float, waiting: int = 1) -> dict[str, Any]:
    return {
        "client": name, "group": "", "weight": 1.0, "counter": counter, "waiting": waiting,
        "running": 1, "service": 1.0, "rates": RATES | {"service_per_s": rate},
    }  # fmt: skip


def seen(**other: Any) -> dict[str, Any]:
    told: dict[str, Any] = {
        "pool": "tiny", "policy": "vtc", "waiting": 3, "running": 2, "backlogged": 2, "credits": 0,
        "oldest_wait_ms": 1500, "gap": 50.0, "bound": 200.0, "jain": 0.99, "rates": RATES,
        "clients": [client("[red]bob", 25, 1050.0), client("alice", 75, 1000.0)],
        "others": {"clients": 7, "waiting": 0, "running": 0, "rates": RATES | {"service_per_s": 0}},
        "groups": [],
        "replicas": [{"name": "r#one", "taking": True, "credits": 0, "running": 4, "facts": FACTS}],
    }  # fmt: skip
    return told | other


def told(observation: dict[str, Any] | None, clients: int = 15) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(screen(observation, "tiny", clients))
    return out.getvalue()


def test_the_screen_tells_what_the_observation_does() -> None:
    text = told(seen())
    for words in ("tiny  fair  gap 50 of 200", "oldest 1.5 s", "7 more", "4 of 8", "25%"):
        assert words in text
    lines = text.splitlines()
    alice, bob = (next(line for line in lines if name in line) for name in ("alice", "[red]bob"))
    assert lines.index(alice) < lines.index(bob)
    assert alice.split()[2] == "75.0%"
    assert bob.split()[-1] == "50"  # ahead of alice


def test_priority_classes_are_called_so() -> None:
    classed = client("carol", 10, 0.0) | {"group": "class:batch/acme/ml"}
    groups = [
        {"group": name, "weight": 1.0, "waiting": 1, "running": 1, "rates": RATES}
        for name in ("class:batch", "class:batch/acme")
    ]
    text = told(seen(clients=[classed], groups=groups, gap=None, waiting=1, backlogged=1))
    assert "acme/ml, class batch" in text
    assert "class:" not in text
    assert "waiting 1 of 1 client," in text


def test_rows_that_do_not_fit_are_summed() -> None:
    assert "8 more" in told(seen(), clients=1)
    assert "25.0%" in told(seen(), clients=1)


@pytest.mark.parametrize(
    ("other", "word"),
    [
        ({}, "fair"),
        ({"gap": 300.0}, "out of bound"),
        ({"bound": None}, "fair? (bound unknown)"),
        ({"gap": None}, "free"),
        ({"gap": None, "waiting": 0, "running": 0}, "idle"),
        ({"policy": "fcfs"}, "not fair (fcfs)"),
    ],
)
def test_the_verdict(other: dict[str, Any], word: str) -> None:
    assert verdict(seen(**other))[0] == word


def test_a_pool_that_was_not_seen() -> None:
    assert "nothing was seen" in told(None)


def test_numbers_and_bars_are_short() -> None:
    assert [short(n) for n in (None, 0.0, 7.25, 1234, 56_789, 1_380_000)] == [
        *("-", "0", "7.25", "1,234", "56.8k", "1.38M")
    ]
    assert [bar(part).plain.count("━") for part in (0, 0.5, 1, 2)] == [0, 6, 12, 12]


def api(pools: dict[str, Any]) -> AdminApi:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/admin/live"
        return httpx.Response(200, json=pools)

    return AdminApi("http://router", "sk-admin", httpx.MockTransport(answer))


def test_one_pool_of_several() -> None:
    two = api({"tiny": seen(), "large": None})
    assert list(top.observed(two)) == ["tiny", "large"]
    assert list(top.observed(two, "large")) == ["large"]
    with pytest.raises(CommandError, match="there are: tiny, large"):
        top.observed(two, "none")


def test_once_as_json_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAIRLANE_ADMIN_KEY", "sk-admin")
    monkeypatch.setattr(top, "AdminApi", lambda url, key: api({"tiny": seen()}))
    import argparse

    parser = argparse.ArgumentParser()
    top.add_command(parser.add_subparsers())
    assert top.run(parser.parse_args(["top", "--json"])) == 0
    assert json.loads(capsys.readouterr().out)["tiny"]["gap"] == 50
    assert top.run(parser.parse_args(["top"])) == 0
    assert "alice" in capsys.readouterr().out
    assert top.run(parser.parse_args(["top", "--pool", "x"])) == 1
