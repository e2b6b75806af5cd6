"""Broken and hostile requests to the whole application, through HAProxy; `make fuzz` sends more."""

from __future__ import annotations

import pytest

from loadtests.fuzz.running import Running, whole
from tests.e2e.conftest import KEYS, App

pytestmark = pytest.mark.e2e


async def test_nothing_that_is_sent_breaks_the_application(app: App) -> None:
    running = Running(app.url, KEYS["alice"], KEYS["admin"])
    outcome = await whole(running, seed=8, numbers=range(150))
    assert outcome.finds == []
    assert outcome.statuses["200"] > 15
    assert outcome.statuses["400"] > 15


def test_only_this_machine_is_fuzzed() -> None:
    with pytest.raises(ValueError, match=r"192\.0\.2\.1"):
        Running("http://192.0.2.1:8000", "k", "a")
