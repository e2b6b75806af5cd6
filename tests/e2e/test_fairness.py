"""Fairness of the real application: global queue, both engines, under VTC and under FCFS."""

from __future__ import annotations

import time

import httpx
import pytest

from loadtests.driver import Client, ClosedLoop, OpenLoop, Report, run
from tests.e2e.conftest import KEYS, App, bearer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(200)]

BACKLOG_S = 30


def flooder(name: str, connections: int, **options: int) -> Client:
    return Client(name, KEYS[name], ClosedLoop(connections), **options)


async def service_while_backlogged(app: App, *clients: Client) -> dict[str, float]:
    """Service of each client over `BACKLOG_S` seconds in which all had requests waiting."""
    app.idle()
    report = await run(app.url, clients, BACKLOG_S, model="tiny")
    assert not report.errors()
    app.idle()
    return {client.name: report.summary(client.name).service for client in clients}


async def test_two_flooding_clients_get_equal_service(app: App) -> None:
    service = await service_while_backlogged(
        app,
        flooder("alice", 120, prompt_bytes=64, max_tokens=96),
        flooder("bob", 50, prompt_bytes=400, max_tokens=32),
    )
    assert service["alice"] / service["bob"] == pytest.approx(1, rel=0.15)


async def test_weight_two_gets_twice_the_service(app: App) -> None:
    service = await service_while_backlogged(
        app, flooder("alice", 80, max_tokens=64), flooder("carol", 80, max_tokens=64)
    )
    assert service["carol"] / service["alice"] == pytest.approx(2, rel=0.2)


def until_known(app: App, policy: str) -> None:
    """Wait until both routers have heard of it: who asks one of them sooner is told of the last."""
    in_a_row, deadline = 0, time.monotonic() + 30
    while in_a_row < 16:
        known = app.get("/admin/queue/policy", "admin").json()
        in_a_row = in_a_row + 1 if set(known.values()) == {policy} else 0
        assert time.monotonic() < deadline, known


def set_policy(app: App, policy: str) -> None:
    answer = httpx.put(
        f"{app.url}/admin/queue/policy",
        json={"policy": policy},
        headers=bearer("admin"),
        timeout=10,
    )
    assert answer.status_code == 200, answer.text


async def flooded(app: App, seconds: float) -> Report:
    """A polite client, a request every second, next to a flooder."""
    report = await run(
        app.url,
        [
            flooder("alice", 100, max_tokens=96),
            Client(
                "bob", KEYS["bob"], OpenLoop.every(1.0, seconds), prompt_bytes=64, max_tokens=16
            ),
        ],
        seconds,
        model="tiny",
    )
    app.idle()
    return report


def median_ttft(report: Report, client: str) -> float:
    times = sorted(record.ttft for record in report.of(client) if record.ttft is not None)
    assert times, f"{client} got no answer"
    return times[len(times) // 2]


async def test_a_polite_client_does_not_wait_in_the_flooders_line(app: App) -> None:
    app.idle()
    fair = await flooded(app, 15)
    set_policy(app, "fcfs")
    try:
        unfair = await flooded(app, 15)
    finally:
        set_policy(app, "vtc")
        until_known(app, "vtc")
    # Under VTC the polite client goes ahead of the line, under FCFS it stands in it.
    assert median_ttft(fair, "bob") < 0.5 * median_ttft(fair, "alice")
    assert median_ttft(fair, "bob") < 0.5 * median_ttft(unfair, "bob")
