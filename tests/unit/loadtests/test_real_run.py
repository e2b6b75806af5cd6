"""A workload on a small real server: what is sent, and what is made of what came back."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from fairness.measures import percentiles
from loadtests import real_run, run_file
from loadtests.client_keys import NO_KEYS, template_keys
from loadtests.driver import Progress
from loadtests.prompts import TINY
from loadtests.real_run import RealRun, UnfitServer, numbers, outcomes, play, script, token_fit
from loadtests.records import Report, RequestRecord
from loadtests.run_view import clients_table, findings, state
from loadtests.scaling import Scale
from loadtests.workloads.workload import Request, Workload
from tests.unit.loadtests.fake_server import FakeServer, serving


def tiny_server(**options: float) -> FakeServer:
    server = FakeServer(**options)
    server.counts_bytes = True
    return server


def contents(server: FakeServer) -> list[str]:
    """The prompts it was asked, without the two that measured how it counts."""
    return [body["messages"][0]["content"] for body in server.bodies[2:]]


async def until(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_lengths_keys_and_prefixes_are_those_of_the_workload() -> None:
    asked = Workload(
        "w",
        (
            Request(0.0, "alice", 40, 3),
            Request(0.0, "alice", 50, 4, key=1),
            Request(0.01, "bob", 60, 5, prefix="p", prefix_tokens=30),
            Request(0.02, "bob", 61, 6, prefix="p", prefix_tokens=30),
        ),
    )
    server = tiny_server()
    async with serving(server) as url:
        real = await play(url, asked, template_keys(asked, "sk-{client}-{number}"))
    prompts = sorted(contents(server), key=len)
    assert [len(prompt) + 3 for prompt in prompts] == [40, 50, 60, 61]
    assert prompts[2][:30] == prompts[3][:30]
    assert prompts[2][30:46] != prompts[3][30:46]
    assert sorted(body["max_tokens"] for body in server.bodies[2:]) == [3, 4, 5, 6]
    assert all(body["ignore_eos"] for body in server.bodies)
    assert sorted(server.keys[2:], key=str) == [
        "Bearer sk-alice-0",
        "Bearer sk-alice-1",
        "Bearer sk-bob-0",
        "Bearer sk-bob-0",
    ]
    assert [outcome.ending for outcome in real.run.outcomes] == ["done"] * 4
    assert [o.request for o in real.run.outcomes] == list(asked.requests)
    assert [o.input_tokens for o in real.run.outcomes] == [40, 50, 60, 61]
    assert [o.output_tokens for o in real.run.outcomes] == [3, 4, 5, 6]
    assert real.run.numbers is not None
    assert real.run.numbers["prompt_tokens_off"] == 0


async def test_times_are_the_workloads_own() -> None:
    asked = Workload("w", (Request(0.0, "a", 20, 2), Request(30.0, "a", 20, 2)))
    async with serving(tiny_server()) as url:
        real = await play(url, asked, NO_KEYS, scale=Scale(time_scale=0.01))
    last = real.run.outcomes[1]
    assert last.request.at == 30.0
    # 0.3 s of the clock are 30 s of the workload; whatever came later took time, too.
    assert last.first_token is not None and last.first_token > 30.0
    assert last.ttft is not None and last.ttft > 0
    assert real.run.makespan >= last.ended >= (last.last_token or 0) >= last.first_token
    assert real.report.duration_s == pytest.approx(real.run.makespan * 0.01)


async def test_a_server_that_never_answers_still_receives_everything() -> None:
    """The loop is open: arrivals don't wait for answers."""
    silent = tiny_server()
    asked = Workload("w", tuple(Request(0.002 * k, "a", 20, 1) for k in range(100)))
    async with serving(silent) as url:
        fit = await token_fit(url, "tiny", None)
        silent.first_s = 3600.0
        run = asyncio.create_task(
            real_run.driver.run(url, [script(asked, NO_KEYS, fit)], 3600.0, model="tiny")
        )
        await until(lambda: silent.open == 100)
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        await until(lambda: silent.open == 0)
    assert silent.hung_up == 100


async def test_what_is_open_at_the_end_is_closed_and_counted() -> None:
    server = tiny_server(step_s=0.02)
    asked = Workload("w", tuple(Request(0.0, "a", 20, 100_000) for _ in range(5)))
    async with serving(server) as url:
        real = await play(url, asked, NO_KEYS, drain_s=1.0)
        await until(lambda: server.open == 0)
    # On a slow machine some may have been closed before they reached the server.
    assert server.hung_up == len(server.bodies) - 2
    assert [outcome.ending for outcome in real.run.outcomes] == ["aborted"] * 5
    assert real.run.numbers is not None and real.run.numbers["cut"] == 5
    assert any("still open at the end" in sentence for sentence in findings(real))


async def test_a_client_hangs_up_after_so_many_tokens() -> None:
    server = tiny_server(step_s=0.01)
    asked = Workload("w", (Request(0.0, "a", 20, 5000, abort_after=4), Request(0.0, "a", 20, 3)))
    async with serving(server) as url:
        real = await play(url, asked, NO_KEYS)
        await until(lambda: server.open == 0)
    left, stayed = real.run.outcomes
    assert (left.ending, stayed.ending) == ("aborted", "done")
    assert 4 <= left.output_tokens < 5000
    assert left.input_tokens == 20  # no usage came: what was asked
    assert real.run.numbers is not None and real.run.numbers["cut"] == 0


async def test_a_refusal_is_not_tried_again() -> None:
    server = tiny_server()
    asked = Workload("w", tuple(Request(0.0, "a", 20, 3) for _ in range(4)))
    async with serving(server) as url:
        fit = await token_fit(url, "tiny", None)
        server.refuse = {"Retry-After": "0"}
        report = await real_run.driver.run(
            url, [script(asked, NO_KEYS, fit)], 30, model="tiny", request_limit=4
        )
    found = outcomes(asked, report, 1.0)
    assert [outcome.ending for outcome in found] == ["refused"] * 4
    assert [(o.input_tokens, o.output_tokens, o.ttft) for o in found] == [(0, 0, None)] * 4
    assert len(server.bodies) == 2 + 4


@pytest.mark.parametrize(
    ("status", "ending"), [(429, "refused"), (503, "refused"), (400, "refused"), (500, "failed")]
)
def test_only_a_no_is_a_refusal(status: int, ending: str) -> None:
    record = RequestRecord("a", 1.0, 20, sent=1.0, status=status, ended=2.0, error="no")
    asked = Workload("w", (Request(10.0, "a", 20, 3),))
    (outcome,) = outcomes(asked, Report(0.0, 2.0, (record,)), 0.1)
    assert (outcome.ending, outcome.ended) == (ending, 20.0)


def test_a_request_that_was_not_sent_has_failed_when_it_was_due() -> None:
    record = RequestRecord("a", 1.0, 20, error="not sent")
    asked = Workload("w", (Request(10.0, "a", 20, 3),))
    (outcome,) = outcomes(asked, Report(0.0, 2.0, (record,)), 0.1)
    assert (outcome.ending, outcome.ended) == ("failed", 10.0)


def late_report(late_s: float) -> tuple[Workload, Report]:
    """Ten requests, each sent so much too late and answered at once."""
    records = []
    for number in range(10):
        at = float(number)
        record = RequestRecord("a", at, 17, sent=at + late_s, status=200, complete=True)
        record.number, record.ended = number, at + late_s + 0.5
        record.input_tokens, record.output_tokens = 20, 3
        record.chunk_times.extend([at + late_s, at + late_s + 0.2, at + late_s + 0.5])
        record.chunk_events.extend([1, 2, 3])
        records.append(record)
    requests = tuple(Request(10.0 * number, "a", 20, 3) for number in range(10))
    return Workload("w", requests), Report(0.0, 10.0, tuple(records))


def test_lateness_counts_against_the_server_and_is_told() -> None:
    asked, report = late_report(0.3)
    found = outcomes(asked, report, 0.1)
    # Times to first token count from when the request should have left.
    assert percentiles([o.ttft or 0 for o in found], (50,))[0] == pytest.approx(3.0)
    told = numbers(asked, report, Scale(time_scale=0.1))
    assert told["late_p99_clock_s"] == pytest.approx(0.3)
    assert told["ttft_p50_clock_s"] == pytest.approx(0.0)
    assert told["fell_behind"] == 1.0
    assert told["inter_token_p50_clock_s"] == pytest.approx(0.1)
    real = RealRun(real_run.Run(asked, "s", 1, found, 100.0, numbers=told), report, time_scale=0.1)
    assert "THE DRIVER FELL BEHIND" in findings(real)[0]
    assert clients_table(real).row_count == 1


def test_a_driver_in_time_says_nothing() -> None:
    asked, report = late_report(0.001)
    assert numbers(asked, report, Scale())["fell_behind"] == 0.0


def test_progress_says_what_is_late_and_what_went_wrong() -> None:
    assert state(Progress(1.0, _counter(a=2), _counter(a=3), sent=5), 9) == (
        "5 of 9 sent, 2 open, 3 done, 0 ms late"
    )
    worse = state(Progress(1.0, _counter(), _counter(), 5, 3, 2, 1, late_s=0.2), 9)
    assert "3 refused, 2 failed, 1 left, [bold red]200 ms late[/]" in worse


def _counter(**counts: int):
    from collections import Counter

    return Counter(counts)


async def test_progress_ends_with_what_was_reached() -> None:
    seen: list[Progress] = []
    asked = Workload("w", tuple(Request(0.0, "a", 20, 2) for _ in range(7)))
    async with serving(tiny_server()) as url:
        await play(url, asked, NO_KEYS, on_progress=seen.append)
    assert (seen[-1].sent, seen[-1].done.total(), seen[-1].open.total()) == (7, 7, 0)


async def test_a_header_tells_clients_apart_where_keys_do_not() -> None:
    seen: list[str | None] = []

    @web.middleware
    async def note(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        seen.append(request.headers.get("X-Client"))
        return await handler(request)

    asked = Workload("w", (Request(0.0, "a", 20, 1), Request(0.1, "b", 20, 1)))
    sent = list(script(asked, NO_KEYS, TINY, headers={"X-Client": "it is {client}"}).requests)
    assert [planned.chat.headers["X-Client"] for planned in sent] == ["it is a", "it is b"]
    async with serving(tiny_server(), middlewares=[note]) as url:
        await play(url, asked, NO_KEYS, headers={"X-Client": "it is {client}"})
    assert sorted(seen[-2:], key=str) == ["it is a", "it is b"]


async def test_a_server_that_can_not_be_measured_says_why() -> None:
    refusing = tiny_server()
    refusing.refuse = {}
    asked = Workload("w", (Request(0.0, "a", 20, 1),))
    async with serving(refusing) as url:
        with pytest.raises(UnfitServer, match="429: too many requests"):
            await play(url, asked, NO_KEYS)
    async with serving(FakeServer()) as url:
        with pytest.raises(UnfitServer, match="can't be made"):
            await play(url, asked, NO_KEYS)


async def test_only_this_machine_is_loaded() -> None:
    asked = Workload("w", (Request(0.0, "a", 20, 1),))
    with pytest.raises(ValueError, match="loopback"):
        await play("http://192.0.2.1:8000", asked, NO_KEYS)
    with pytest.raises(ValueError, match="no requests"):
        await play("http://127.0.0.1:9", asked, NO_KEYS, scale=Scale(1.0, 1.0, -1.0))


async def test_a_run_survives_its_file(tmp_path) -> None:
    asked = Workload("w", (Request(0.0, "a", 20, 2, abort_after=9),), {"a": 2.0})
    async with serving(tiny_server()) as url:
        real = await play(url, asked, NO_KEYS)
    file = tmp_path / "run.json"
    run_file.save(real.run, file)
    assert run_file.load(file) == real.run
    for broken in ("{", "[]", '{"format": "x"}', '{"format": "fairlane run 1"}'):
        file.write_text(broken)
        with pytest.raises(run_file.NotARun):
            run_file.load(file)
