"""Whatever comes over HTTP, a router answers in form, tells no secret, keeps nothing and serves on.

`make fuzz` does the same with 10,000 cases; what it finds becomes a case here, or a unit test.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from loadtests.fuzz.case import Case, request
from loadtests.fuzz.check import Answer, Bars, judge
from loadtests.fuzz.http_cases import JSON, bearer
from loadtests.fuzz.run import Target, fuzz
from loadtests.fuzz.stage import ADMIN_KEY, KEY, OTHER, OTHER_KEY, Stage, stage

pytestmark = pytest.mark.integration

SEED = 6
CHAT = "/v1/chat/completions"
HEADERS = bearer(KEY) + JSON


@pytest_asyncio.fixture
async def router() -> AsyncIterator[Stage]:
    async with stage() as made:
        yield made


async def test_nothing_that_is_sent_breaks_a_router(router: Stage) -> None:
    secrets = (KEY, OTHER_KEY, ADMIN_KEY)
    target = Target(router.address, KEY, ADMIN_KEY, secrets, (OTHER,))
    outcome = await fuzz(target, SEED, range(400))
    assert outcome.finds == []
    assert outcome.statuses["200"] > 50  # most cases are judged by the router, not by the server
    assert outcome.statuses["400"] > 50
    assert router.replica.problems == []
    assert router.overheard.problems == []
    assert not any((await router.leaks()).values())


async def test_a_web_socket_is_refused(router: Stage) -> None:
    headers = [("Connection", "Upgrade"), ("Upgrade", "websocket")]
    headers += [("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]
    for path, key in ((CHAT, KEY), ("/admin/clients", ADMIN_KEY)):
        raw = request("GET", path, [*bearer(key), *headers])
        (answer,), _ = await router.address.ask(Case("upgrade", (raw,), "GET", broken=True))
        assert answer.status == 403


async def test_a_body_that_never_comes_is_408_and_the_connection_ends(router: Stage) -> None:
    raw = request("POST", CHAT, [*HEADERS, ("Content-Length", "100")], b"{", length=False)
    case = Case("cut body", (raw,))
    answers, end = await router.address.ask(case)
    assert ([answer.status for answer in answers], end) == ([408], "closed")
    assert judge(case, answers, end, Bars(())) == []


async def test_asking_and_leaving_leaves_nothing_behind(router: Stage) -> None:
    raw = request("POST", CHAT, HEADERS, b'{"model": "tiny", "messages": []}')
    await asyncio.gather(
        *(router.address.ask(Case("leaves", (raw,), owed=False)) for _ in range(50))
    )
    assert not any((await router.leaks()).values())


def test_a_fault_would_be_found() -> None:
    raw = request("POST", CHAT, HEADERS, b"{}")
    case = Case("body", (raw,))
    bars = Bars((b"sk-1",), (b"bob",))
    for answer in (
        Answer(500, {}, b"{}", whole=True),
        Answer(503, {}, b"overloaded", whole=True),
        Answer(400, {}, b'{"detail": "x"}', whole=True),
        Answer(200, {}, b"sk-1", whole=True),
        Answer(200, {b"x": b"bob"}, whole=True),
        Answer(200, {}, b"{"),
    ):
        assert judge(case, [answer], "reusable", bars)
    assert judge(case, [], "hung", bars)
    assert not judge(case, [Answer(200, {}, b"{}", whole=True)], "reusable", bars)
