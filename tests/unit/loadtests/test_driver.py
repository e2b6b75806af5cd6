"""The driver against a small real server that streams as vLLM does."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from loadtests import driver
from loadtests.driver import (
    Chat,
    Client,
    ClosedLoop,
    OpenLoop,
    Planned,
    Progress,
    Report,
    RequestRecord,
    Script,
)
from tests.unit.loadtests.fake_server import FakeServer, serving


async def until(condition, limit_s: float = 5.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_closed_loop_ends_when_its_requests_are_done() -> None:
    server = FakeServer()
    async with serving(server) as url:
        client = Client("alice", "sk-a", ClosedLoop(4, requests=10), max_tokens=5)
        report = await driver.run(url, [client], 30)
    summary = report.summary("alice")
    assert (summary.requests, summary.done) == (10, 10)
    assert (summary.input_tokens, summary.output_tokens) == (500, pytest.approx(50))
    assert summary.service == pytest.approx(600)
    assert summary.ttft_p50 is not None and 0 < summary.ttft_p50 < 1
    assert report.duration_s < 5
    assert server.most_open == 4
    assert set(server.keys) == {"Bearer sk-a"}


async def test_the_request_is_what_was_asked_for() -> None:
    server = FakeServer()
    async with serving(server) as url:
        client = Client("alice", None, ClosedLoop(1, requests=3), prompt_bytes=77, max_tokens=2)
        await driver.run(url, [client], 30)
    prompts = [body["messages"][0]["content"] for body in server.bodies]
    assert [len(prompt.encode()) for prompt in prompts] == [77, 77, 77]
    assert len({prompt[:16] for prompt in prompts}) == 3
    assert server.bodies[0]["model"] == "tiny"
    assert server.bodies[0]["ignore_eos"] is True
    assert server.bodies[0]["stream_options"] == {"include_usage": True}
    assert server.keys == [None] * 3


async def test_arrivals_do_not_wait_for_answers() -> None:
    server = FakeServer(first_s=0.5)
    async with serving(server) as url:
        client = Client("bob", "k", OpenLoop.every(0.02, 0.2), max_tokens=1)
        report = await driver.run(url, [client], 30)
    assert server.most_open == 10
    assert report.summary("bob").done == 10
    assert report.duration_s < 2
    for k, record in enumerate(report.of("bob")):
        assert record.scheduled == pytest.approx(k * 0.02)
        assert record.lateness >= 0
        assert record.ttft is not None and record.ttft >= 0.5


async def test_a_driver_that_falls_behind_says_so() -> None:
    server = FakeServer()

    def block(progress: Progress) -> None:
        time.sleep(0.15)

    async with serving(server) as url:
        client = Client("bob", "k", OpenLoop.every(0.01, 0.3), max_tokens=1)
        report = await driver.run(url, [client], 30, on_progress=block)
    assert report.fell_behind
    assert report.summary("bob").done == 30


async def test_the_deadline_closes_what_is_open() -> None:
    server = FakeServer(step_s=0.05)
    async with serving(server) as url:
        client = Client("alice", "k", ClosedLoop(8), max_tokens=10_000)
        report = await driver.run(url, [client], 0.5)
        await until(lambda: server.open == 0)
    assert server.hung_up == 8
    summary = report.summary("alice")
    assert (summary.requests, summary.aborted, summary.failed) == (8, 8, 0)
    # No usage came: an event is a token, the first only carries the role.
    events = sum(sum(record.chunk_events) for record in report.records)
    assert summary.output_tokens == pytest.approx(events - 8)
    assert report.duration_s == pytest.approx(0.5, abs=0.3)


async def test_a_cancelled_caller_leaves_nothing_behind() -> None:
    server = FakeServer(step_s=0.05)
    async with serving(server) as url:
        clients = [
            Client("alice", "k", ClosedLoop(4), max_tokens=10_000),
            Client("bob", "k", OpenLoop.every(0.1, 60), max_tokens=10_000),
        ]
        before = asyncio.all_tasks()
        run = asyncio.create_task(driver.run(url, clients, 60, on_progress=lambda _: None))
        await until(lambda: server.open >= 5)
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        await until(lambda: server.open == 0)
        # The server's own connection handlers may still be closing; none of them is the driver's.
        left = asyncio.all_tasks() - before
        assert not [task for task in left if "loadtests" in repr(task.get_coro())]


async def test_a_refusal_is_recorded_and_its_retry_after_kept() -> None:
    server = FakeServer()
    server.refuse = {"Retry-After": "0.2"}
    async with serving(server) as url:
        client = Client("alice", "k", ClosedLoop(1), max_tokens=1)
        report = await driver.run(url, [client], 0.5)
    assert 2 <= len(report.records) <= 3
    assert report.records[0].retry_after == 0.2
    assert report.records[0].error == "429: too many requests of this client"
    summary = report.summary("alice")
    assert summary.requests == summary.refused
    assert summary.ttft_p50 is None
    assert summary.service == 0


async def test_a_stream_cut_by_the_server_is_a_failure() -> None:
    server = FakeServer()
    server.cut_after = 3
    async with serving(server) as url:
        client = Client("alice", "k", ClosedLoop(1, requests=1), max_tokens=9)
        report = await driver.run(url, [client], 30)
    summary = report.summary("alice")
    assert (summary.done, summary.failed) == (0, 1)
    assert report.records[0].error


async def test_a_server_that_is_not_there() -> None:
    client = Client("alice", "k", ClosedLoop(1, requests=1))
    report = await driver.run("http://127.0.0.1:9", [client], 30, model="tiny")
    assert report.records[0].status == 0
    assert report.summary("alice").failed == 1


async def test_a_client_may_hang_up_on_its_own() -> None:
    server = FakeServer(step_s=0.01)
    async with serving(server) as url:
        client = Client(
            "alice", "k", ClosedLoop(1, requests=2), max_tokens=1000, abort_after_events=5
        )
        report = await driver.run(url, [client], 30)
        await until(lambda: server.open == 0)
    assert server.hung_up == 2
    assert report.summary("alice").aborted == 2


async def test_a_client_may_lose_patience() -> None:
    server = FakeServer(first_s=5.0)
    async with serving(server) as url:
        client = Client("alice", "k", ClosedLoop(2, requests=4), abort_after_s=0.2)
        report = await driver.run(url, [client], 30)
        await until(lambda: server.open == 0)
    assert server.hung_up == 4
    assert report.duration_s < 4
    assert [record.error for record in report.records] == [None] * 4
    assert report.summary("alice").aborted == 4


async def test_patience_that_lasts_changes_nothing() -> None:
    async with serving(FakeServer()) as url:
        client = Client("alice", "k", ClosedLoop(1, requests=2), max_tokens=3, abort_after_s=20)
        report = await driver.run(url, [client], 30)
    assert report.summary("alice").done == 2


@pytest.mark.parametrize(
    ("error", "error_type"),
    [({"type": "rate_limit_error"}, "rate_limit_error"), ({}, None), ({"type": 429}, None)],
)
async def test_the_type_of_a_refusal_is_kept(error, error_type) -> None:
    server = FakeServer()
    server.refuse = {}
    server.error = {"message": "no", **error}
    async with serving(server) as url:
        client = Client("alice", "k", ClosedLoop(1, requests=1), max_tokens=1)
        report = await driver.run(url, [client], 30)
    assert (report.records[0].error, report.records[0].error_type) == ("429: no", error_type)


async def test_clients_come_and_go_at_their_times() -> None:
    server = FakeServer()
    async with serving(server) as url:
        clients = [
            Client("bob", "k", OpenLoop.every(0.05, 10), max_tokens=1, stop_s=0.3),
            Client("bob", "k", ClosedLoop(2), max_tokens=1, start_s=0.3, stop_s=0.5),
        ]
        report = await driver.run(url, clients, 30)
    assert len([r for r in report.records if r.scheduled < 0.3]) == 6
    assert max(r.scheduled for r in report.records) < 0.6
    assert report.clients() == ["bob"]


async def test_loads_are_bounded_in_number() -> None:
    server = FakeServer(first_s=0.3)
    async with serving(server) as url:
        client = Client("alice", "k", OpenLoop.every(0.001, 1), max_tokens=1)
        report = await driver.run(url, [client], 30, request_limit=20, open_limit=5)
    assert len(report.records) == 20
    assert server.most_open == 5
    assert report.errors()["not sent: the driver has 5 requests open"] == 15


async def test_only_this_machine_is_loaded() -> None:
    client = Client("alice", "k", ClosedLoop(1, requests=1))
    with pytest.raises(ValueError, match="loopback"):
        await driver.run("http://192.0.2.1:8000", [client], 1)
    for mine in ("http://127.0.0.1:1", "http://127.8.8.8:1", "http://[::1]:1", "http://localhost"):
        driver.require_loopback(mine)


def test_deliveries_spread_the_servers_own_count_over_the_events() -> None:
    record = RequestRecord("alice", 0.0, 100, sent=0.0, status=200, complete=True)
    record.input_tokens, record.output_tokens = 40, 10
    record.chunk_times.extend([1.0, 2.0])
    record.chunk_events.extend([1, 4])
    cut = RequestRecord("bob", 0.0, 200, sent=0.0, status=200, aborted=True)
    cut.chunk_times.append(1.5)
    cut.chunk_events.append(3)
    made = Report(0.0, 2.0, (record, cut)).deliveries()
    assert [tuple(delivery) for delivery in made] == [
        (1.0, "alice", 40, 2.0),
        (1.5, "bob", 80, 2.0),  # 0.4 input tokens a byte, as alice's; three events, one the role
        (2.0, "alice", 0, 8.0),
    ]


async def test_requests_that_are_due_leave_at_once() -> None:
    """Not one a turn of the event loop: with many streams open a turn takes long."""
    turns = 0
    turn_of_request = []

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def due() -> Iterator[Planned]:
        for _ in range(50):
            turn_of_request.append(turns)
            yield Planned(0.0, Chat("bob", "k", "a b c", 1))

    server = FakeServer()
    async with serving(server) as url:
        counting = asyncio.create_task(count_turns())
        report = await driver.run(url, [Script(due(), ("bob",))], 30, model="tiny")
        counting.cancel()
    assert len(set(turn_of_request)) == 1
    assert report.summary("bob").done == 50
    assert [record.number for record in report.records] == list(range(50))
