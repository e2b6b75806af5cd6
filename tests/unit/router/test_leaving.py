"""A router that Serve ends finds out by itself, and is done in time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from ray.serve._private.http_util import convert_object_to_asgi_messages

from router import front_door, leaving
from router.front_door import StripHeaders, draining
from router.leaving import leave_in_time


class Serve:
    """Ray Serve's application, as far as load balancers ask it."""

    def __init__(self) -> None:
        self.status, self.message = 200, "success"

    async def __call__(self, scope: dict[str, Any], _receive: Any, send: Any) -> None:
        assert scope["path"] == "/-/healthz"
        for message in convert_object_to_asgi_messages(self.message, status_code=self.status):
            await send(message)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    monkeypatch.setattr(leaving, "LOOK_S", 0.01)
    monkeypatch.setattr(front_door, "_served", [])
    return Serve()


async def test_serve_says_that_it_drains(serve: Serve) -> None:
    assert not await draining()  # nothing serves yet
    StripHeaders(serve)
    assert not await draining()
    serve.status, serve.message = 503, "UNHEALTHY"
    assert not await draining()
    serve.message = "DRAINING"
    assert await draining()


async def test_what_lasts_is_ended_after_a_time(serve: Serve) -> None:
    StripHeaders(serve)
    began, ended = asyncio.Event(), asyncio.Event()
    left = asyncio.create_task(leave_in_time(draining, 0.3, begin=began.set, end=ended.set))
    await asyncio.sleep(0.1)
    assert not began.is_set()
    serve.status, serve.message = 503, "DRAINING"
    async with asyncio.timeout(10):
        await began.wait()
        assert not ended.is_set()
        await left
    assert ended.is_set()
