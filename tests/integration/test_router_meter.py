"""What a router's meter hears of requests, however they end."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

import pytest

from router.meter import Meter
from router.relay import BrokenAnswerError
from tests.integration.test_router import (
    CHAT,
    IMPATIENT,
    Setup,
    breaks_in_the_json,
    breaks_in_the_stream,
    fine,
    hangs,
    replica,
    setup,
)
from tests.integration.trunk_replica import Request

__all__ = ["setup"]  # a fixture

pytestmark = pytest.mark.integration


@dataclass
class Heard(Meter):
    """Keeps what it is told."""

    outcomes: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    streams: list[float] = field(default_factory=list)

    def waited(self, pool: str, seconds: float) -> None:
        self.waits.append(seconds)

    def first_token(self, pool: str, seconds: float) -> None:
        self.streams.append(seconds)

    def ended(self, pool: str, outcome: str) -> None:
        self.outcomes.append(outcome)

    def refused(self, reason: str) -> None:
        self.reasons.append(reason)


@pytest.fixture
def heard(setup: Setup) -> Heard:
    setup.app.meter = heard = Heard()
    return heard


async def streams(request: Request) -> None:
    await request.start()
    for _ in range(5):
        await request.write(b"data: one\n\n")
    await request.write(b"data: [DONE]\n\n", more=False)


async def refuses(request: Request) -> None:
    await request.answer(b'{"error":{"message":"no"}}', status=400)


async def test_an_answer_and_a_stream(setup: Setup, heard: Heard) -> None:
    async with replica(setup, "r1", fine, 1):
        await setup.seen(1)
        await setup.ask()
    assert (heard.outcomes, len(heard.waits), heard.streams) == (["ok"], 1, [])
    async with replica(setup, "r2", streams, 1):
        await setup.seen(2)
        await setup.ask()
    assert heard.outcomes == ["ok", "ok"]
    assert len(heard.streams) == 1  # once, for five chunks
    assert heard.streams[0] >= heard.waits[1]
    assert heard.reasons == []


async def test_what_fails_in_the_middle(setup: Setup, heard: Heard) -> None:
    async with replica(setup, "r1", breaks_in_the_stream, 1):
        await setup.seen(1)
        await setup.ask()
    async with replica(setup, "r2", breaks_in_the_json, 1):
        await setup.seen(2)
        with contextlib.suppress(BrokenAnswerError):
            await setup.ask()
    assert heard.outcomes == ["failed", "failed"]


async def test_what_the_model_rejects(setup: Setup, heard: Heard) -> None:
    async with replica(setup, "r1", refuses, 1):
        await setup.seen(1)
        await setup.ask()
    assert (heard.outcomes, heard.reasons) == (["rejected"], [])


async def test_who_is_refused_and_why(setup: Setup, heard: Heard) -> None:
    async with replica(setup, "r1", hangs, 1):
        await setup.seen(1)
        setup.app.limits = IMPATIENT
        hanging = asyncio.create_task(setup.ask())
        await asyncio.sleep(0.2)
        await setup.ask()  # no turn in time
        await setup.ask(headers={"Authorization": "Bearer sk-nobody"})
        await setup.http.post("/v1/chat/completions", json={**CHAT, "model": "no-such"})
        hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
    assert heard.reasons == ["unavailable", "invalid_api_key", "model_not_found"]
    assert heard.outcomes == ["refused", "gone"]  # the last is the one that was given up
