"""Grants are believed only from routers, by the replica they name, and for a while."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairness.grant_token import GrantToken, InvalidTokenError

KEY = b"k" * 32
TOKEN = GrantToken("r1.1", "alice", "replica-1", expires=100.0, weight=2.0, counter=7.5)


def test_it_arrives_as_it_was_sent() -> None:
    assert GrantToken.decode(TOKEN.encode(KEY), KEY, "replica-1", now=99) == TOKEN


@pytest.mark.parametrize(
    ("key", "replica", "now", "why"),
    [
        (b"another key", "replica-1", 99, "not signed"),
        (KEY, "replica-2", 99, "another replica"),
        (KEY, "replica-1", 101, "expired"),
    ],
)
def test_it_is_refused(key: bytes, replica: str, now: float, why: str) -> None:
    with pytest.raises(InvalidTokenError, match=why):
        GrantToken.decode(TOKEN.encode(key if key != KEY else KEY), KEY, replica, now)


def test_a_changed_body_is_refused() -> None:
    body, mac = TOKEN.encode(KEY).split(".")
    content = json.loads(base64.urlsafe_b64decode(body)) | {"client": "bob"}
    forged = base64.urlsafe_b64encode(json.dumps(content).encode()).decode()
    with pytest.raises(InvalidTokenError):
        GrantToken.decode(f"{forged}.{mac}", KEY, "replica-1", now=99)


@given(st.text())
def test_any_text_is_refused_without_another_error(text: str) -> None:
    with pytest.raises(InvalidTokenError):
        GrantToken.decode(text, KEY, "replica-1", now=0)
