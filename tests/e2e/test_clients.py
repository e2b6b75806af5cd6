"""Clients and keys made while the application runs, with the command that operators have."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.e2e.conftest import KEYS, ROOT, App

pytestmark = pytest.mark.e2e

WAIT_S = 120.0
LOOKS = 12  # whichever router is asked: there are two
CHAT: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 4,
    "ignore_eos": True,
}


def fairlane(app: App, *arguments: str) -> str:
    """What the command prints."""
    environment = os.environ | {
        "FAIRLANE_BASE_URL": app.url,
        "FAIRLANE_ADMIN_KEY": KEYS["admin"],
    }
    done = subprocess.run(
        [sys.executable, "-m", "deployments.cli", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def answers_become(app: App, key: str, status: int) -> None:
    """Wait until every router answers the key so."""
    deadline = time.monotonic() + WAIT_S
    in_a_row = 0
    while in_a_row < LOOKS:
        answer = app.get("/v1/models", key)
        in_a_row = in_a_row + 1 if answer.status_code == status else 0
        assert time.monotonic() < deadline, answer.text


def test_a_client_and_its_key_from_the_command_line_to_401(app: App) -> None:
    run = secrets.token_hex(4)  # the application's own store keeps what earlier runs have made
    acme, dora = f"acme-{run}", f"dora-{run}"
    fairlane(app, "groups", "add", acme, "--weight", "2")
    fairlane(app, "clients", "add", dora, "--group", acme, "--weight", "3")
    key = fairlane(app, "keys", "create", dora, "--label", "laptop").strip()
    answers_become(app, key, 200)
    answer = app.post("/v1/chat/completions", CHAT, key)
    assert answer.status_code == 200, answer.text
    assert app.clients()[dora]["weight"] == 3
    assert app.idle()[dora]["output_tokens"] == 4
    listed = fairlane(app, "keys", "list", dora)
    assert key not in listed
    (key_id,) = (line.split()[0] for line in listed.splitlines() if "laptop" in line)
    fairlane(app, "keys", "revoke", key_id)
    answers_become(app, key, 401)
    assert app.post("/v1/chat/completions", CHAT, key).status_code == 401
    assert "key.revoke" in fairlane(app, "audit")
    fairlane(app, "clients", "remove", dora)
    fairlane(app, "groups", "remove", acme)
