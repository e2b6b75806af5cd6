"""What routers log: lines that say which request they are about, and nothing that is nobody's
business."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from fairness.cost import ServiceCost
from fairness.log_lines import LineFormatter
from fairness.store.contract import Usage
from router.app import about_request
from router.watch import Watch
from tests.integration.test_explain import CHAT, Replica, Router, fine, replica, router
from tests.integration.trunk_replica import Request

pytestmark = pytest.mark.integration

SECRET = "the-secret-prompt"
SECRETS = (SECRET, "sk-alice", "sk-admin", "sk-wrong", "Bearer")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """All that any logger of this process says, down to DEBUG, as routers write it."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(LineFormatter("json", about_request))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield text
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def logged(text: io.StringIO, logger: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.getvalue().splitlines()]
    return [line for line in found if line["logger"] == logger]


async def ask(one: Router, body: bytes, key: str = "sk-alice") -> Any:
    headers = {"Authorization": f"Bearer {key}", "content-type": "application/json"}
    return await one.http.post("/v1/chat/completions", content=body, headers=headers)


async def served(one: Router, at: Replica, body: bytes) -> str:
    await at.take(1)
    answer = await ask(one, body)
    await at.settle(at.leases.tokens[-1].lease, Usage(30, 0, 5))
    return str(answer.headers["x-fairlane-request-id"])


async def test_an_access_line_a_request_and_no_secrets_anywhere(
    server_url: str, lines: io.StringIO
) -> None:
    chat = {**CHAT, "messages": [{"role": "user", "content": SECRET}]}
    body = json.dumps(chat).encode()
    refusals = iter([True, False])

    async def refuses_once(request: Request) -> None:
        if next(refusals, False):
            raise RuntimeError("played")  # as vLLM's app would fail
        await fine(request)

    async with router(server_url, "router-1") as one:
        watch = one.app.watch
        one.app.watch = Watch("router-1", ServiceCost(), access=True)
        async with replica(server_url, "replica-1", refuses_once) as only:
            for broken in (b"{" + SECRET.encode(), body[:-1], body.replace(b"tiny", b"other")):
                assert (await ask(one, broken)).status_code in (400, 404)
            assert (await ask(one, body, "sk-wrong")).status_code == 401
            await one.admin("requests")
            first = await served(one, only, body)
            second = await served(one, only, body)
            async with asyncio.timeout(30):
                while len(logged(lines, "fairlane.access")) < 2:
                    await asyncio.sleep(0.05)
        one.app.watch = watch
        # A fault of the router, in the middle of a request.
        one.app.limits = None  # type: ignore[assignment]
        assert (await ask(one, body)).status_code == 500
    failed, fine_line = sorted(logged(lines, "fairlane.access"), key=lambda line: line["status"])[
        ::-1
    ]
    assert {failed["request_id"], fine_line["request_id"]} == {first, second}
    assert (fine_line["client"], fine_line["state"], fine_line["model"]) == (
        *("alice", "done"),
        "tiny",
    )
    assert (fine_line["input_tokens"], fine_line["output_tokens"]) == (30, 5)
    assert fine_line["waited_ms"] >= 0
    (fault,) = logged(lines, "router.app")
    assert fault["client"] == "alice"
    assert len(fault["request_id"]) == 16
    assert "exception" in fault
    for secret in SECRETS:
        assert secret not in lines.getvalue(), secret
