"""The demo: what it computes, what it draws, and that it leaves the policy as it should be."""

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from loadtests import demo
from loadtests.demo import DemoLoad, examine, findings, run_demo, tables
from loadtests.driver import Report, RequestRecord
from tests.unit.loadtests.fake_server import FakeServer, serving


def request(client: str, at: float, ttft: float, tokens: int = 100) -> RequestRecord:
    """A request whose answer comes in ten pieces within a second of its first token."""
    record = RequestRecord(client, at, 100, sent=at, status=200, complete=True)
    record.input_tokens, record.output_tokens = 100, tokens
    for k in range(10):
        record.chunk_times.append(at + ttft + k / 10)
        record.chunk_events.append(10)
    record.ended = at + ttft + 1
    return record


def test_halves_are_told_apart() -> None:
    """Bob asks once while polite; then alice gets three times what he does."""
    requests = [request("bob", 1.0, ttft=0.25)]
    requests += [request("alice", 10 + k, ttft=0.5) for k in range(9) for _ in range(3)]
    requests += [request("bob", 10 + k, ttft=0.5) for k in range(9)]
    run = examine("fcfs", Report(0.0, 20.0, tuple(requests)), seconds=20.0)
    alice, bob = run.polite
    assert (alice.requests, bob.requests) == (0, 1)
    assert bob.service == pytest.approx(300)
    assert bob.ttft_p50 == 0.25
    assert alice.ttft_p50 is None
    assert run.alice_over_bob == pytest.approx(3.0)
    assert run.greedy[0].input_tokens == 2700
    assert "alice received 3.00 times bob's service" in findings([run])[0]
    assert tables([run]).row_count == 4


def test_a_bob_that_starved_is_infinitely_worse_off() -> None:
    run = examine("fcfs", Report(0.0, 20.0, (request("alice", 12.0, 0.1),)), seconds=20.0)
    assert run.alice_over_bob == float("inf")
    assert tables([run]).row_count == 4


def test_problems_are_told() -> None:
    refused = RequestRecord("bob", 1.0, 100, sent=2.0, status=429, error="429: too many")
    run = examine("vtc", Report(0.0, 20.0, (refused,)), seconds=20.0)
    said = "\n".join(findings([run]))
    assert "fell behind" in said
    assert "1 requests: 429: too many" in said


@pytest.fixture
def server_url() -> Iterator[str]:
    """The fake server in a thread of its own, as `run_demo` runs its own event loops."""
    started = threading.Event()
    place: dict[str, object] = {}

    async def serve() -> None:
        async with serving(FakeServer(step_s=0.001)) as url:
            stop = asyncio.Event()
            place.update(url=url, stop=stop, loop=asyncio.get_running_loop())
            started.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(10)
    yield str(place["url"])
    place["loop"].call_soon_threadsafe(place["stop"].set)
    thread.join(10)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> DemoLoad:
    monkeypatch.setattr(demo, "WARM_UP_S", 0.1)
    monkeypatch.setattr(demo, "BETWEEN_S", 0.0)
    return DemoLoad(alice_connections=4, bob_connections=2, bob_interval_s=0.2, max_tokens=10)


def test_both_policies_are_played_and_drawn(
    server_url: str, small: DemoLoad, tmp_path: Path
) -> None:
    asked: list[str] = []
    console = Console(file=io.StringIO(), width=100)
    result = run_demo(
        server_url, None, tmp_path / "out", 1.0, asked.append, load=small, console=console
    )
    assert asked == ["vtc", "fcfs", "vtc"]
    assert [run.policy for run in result.runs] == ["vtc", "fcfs"]
    assert result.figure.read_bytes().startswith(b"\x89PNG")
    numbers = json.loads(result.data.read_text())
    # What they received depends on the machine's speed: its reckoning is tested above.
    assert list(numbers["runs"]) == ["vtc", "fcfs"]
    for run in result.runs:
        assert run.errors == {}
        assert numbers["runs"][run.policy]["alice_over_bob"] == run.alice_over_bob
    assert "sk-" not in result.data.read_text()


def test_without_a_way_to_switch_one_policy_is_shown(
    server_url: str, small: DemoLoad, tmp_path: Path
) -> None:
    console = Console(file=io.StringIO())
    result = run_demo(server_url, None, tmp_path, 0.5, load=small, console=console)
    assert [run.policy for run in result.runs] == ["as configured"]


def test_the_policy_is_restored_after_an_error(
    server_url: str, small: DemoLoad, tmp_path: Path
) -> None:
    asked: list[str] = []

    def set_policy(name: str) -> None:
        asked.append(name)
        if name == "fcfs":
            raise KeyboardInterrupt

    console = Console(file=io.StringIO())
    with pytest.raises(KeyboardInterrupt):
        run_demo(server_url, None, tmp_path, 0.3, set_policy, load=small, console=console)
    assert asked == ["vtc", "fcfs", "vtc"]
