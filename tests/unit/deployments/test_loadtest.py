"""The command line of `fairlane loadtest`, against a small real server."""

import argparse
import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from deployments import cli, loadtest
from loadtests import run_file
from tests.unit.loadtests.fake_server import FakeServer, serving

WORKLOAD = """arrival_s,client,input_tokens,output_tokens
0.0,red,30,3
0.1,blue,40,4
0.2,red,30,3
"""


@pytest.fixture
def csv(tmp_path: Path) -> str:
    file = tmp_path / "mine.csv"
    file.write_text(WORKLOAD)
    return str(file)


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    loadtest.add_arguments(parser, cli.LOCAL)
    return parser.parse_args(arguments)


def fairlane(*arguments: str) -> int:
    options = parsed(*arguments)
    return int(options.run(options))


@contextmanager
def running(server: FakeServer) -> Iterator[str]:
    """Serve in a thread of its own: the command starts an event loop itself."""
    started = threading.Event()
    found: list[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def serve() -> None:
        async with serving(server) as url:
            stop = asyncio.Event()
            found.append((url, asyncio.get_running_loop(), stop))
            started.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(30)
    url, loop, stop = found[0]
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(30)


@pytest.fixture
def url() -> Iterator[str]:
    server = FakeServer()
    server.counts_bytes = True
    with running(server) as url:
        yield url


def test_a_run_is_played_told_and_kept(url: str, csv: str, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    status = fairlane(
        *("--url", url, "--csv", csv, "--key-template", "sk-secret-{client}"),
        *("--system", "fake", "--out", str(out)),
    )
    assert status == 0
    said = capsys.readouterr().out
    assert "3 requests of 2 clients" in said.replace("\n", " ")
    assert "red" in said and "blue" in said
    run = run_file.load(out / "mine.fake.run.json")
    assert [outcome.ending for outcome in run.outcomes] == ["done"] * 3
    assert (out / "mine.html").read_text().startswith("<!doctype html>")
    for file in out.iterdir():
        assert "secret" not in file.read_text()
    assert "secret" not in said

    # A second system beside the first one's run.
    status = fairlane(
        *("--url", url, "--csv", csv, "--no-keys", "--system", "other", "--out", str(out)),
        *("--beside", str(out / "mine.fake.run.json")),
    )
    assert status == 0
    page = (out / "mine.html").read_text()
    assert "fake" in page and "other" in page


def test_what_the_server_refuses_is_no_success(csv: str, tmp_path: Path, capsys) -> None:
    server = FakeServer()
    server.counts_bytes = True
    server.refuse = {}
    with running(server) as url:
        status = fairlane("--url", url, "--csv", csv, "--no-keys", "--out", str(tmp_path))
    assert status == 1
    assert "too many requests" in capsys.readouterr().err


def test_a_configuration_and_keys_are_made_for_a_workload(csv: str, tmp_path: Path, capsys) -> None:
    keys = tmp_path / "keys.csv"
    arguments = ("--csv", csv, "--keys", str(keys), "--generate-config")
    assert fairlane(*arguments) == 0
    first = capsys.readouterr()
    clients = yaml.safe_load(first.out)["applications"][0]["args"]["clients"]
    assert [client["name"] for client in clients] == ["alice", "bob", "carol", "blue", "red"]
    assert all(len(client["key_hashes"]) == 1 for client in clients[-2:])
    secrets = [line.split(",")[1] for line in keys.read_text().splitlines()[1:]]
    assert len(secrets) == 2
    assert not any(secret in first.out + first.err for secret in secrets)
    # The file is kept, and so are the hashes.
    assert fairlane(*arguments) == 0
    assert capsys.readouterr().out == first.out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((), "--list shows what there is"),
        (("--workload", "nonsense"), "no workload 'nonsense'"),
        (("--csv", "absent.csv"), "absent.csv"),
        (("--workload", "arena"), "--generate-config makes one"),
        (("--workload", "arena", "--generate-config"), "--keys FILE"),
        (("--workload", "noisy_neighbour", "--url", "http://192.0.2.1"), "loopback"),
        (("--workload", "noisy_neighbour", "--header", "x"), "NAME:VALUE"),
        (("--workload", "noisy_neighbour", "--url", "http://127.0.0.1:9"), "127.0.0.1:9"),
    ],
)
def test_mistakes_are_told_in_a_line(
    arguments: tuple[str, ...], complaint: str, tmp_path: Path, capsys
) -> None:
    assert fairlane(*arguments, "--out", str(tmp_path)) == 1
    error = capsys.readouterr().err
    assert complaint in error
    assert error.startswith("fairlane: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("scale", ["0", "-1", "inf", "nan", "x"])
def test_scales_are_above_zero(scale: str) -> None:
    with pytest.raises(SystemExit):
        parsed("--time-scale", scale)


def test_one_way_to_name_keys_and_one_to_name_a_workload() -> None:
    for arguments in (["--no-keys", "--keys", "x"], ["--workload", "a", "--csv", "b"]):
        with pytest.raises(SystemExit):
            parsed(*arguments)


def test_workloads_are_listed(capsys) -> None:
    assert fairlane("--list") == 0
    assert "noisy_neighbour" in capsys.readouterr().out


def test_the_command_line_is_read_without_heavy_imports() -> None:
    heavy = "{'ray', 'vllm', 'torch', 'matplotlib', 'aiohttp', 'numpy'} & set(sys.modules)"
    script = f"import sys, deployments.cli; print({heavy} or 'light')"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "light"


def test_policies_are_set_in_turn_and_vtc_in_the_end(
    url: str, csv: str, tmp_path: Path, monkeypatch
) -> None:
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(
        "loadtests.demo.policy_setter", lambda url, key: lambda name: asked.append((name, key))
    )
    monkeypatch.setattr(loadtest, "BETWEEN_S", 0.0)
    monkeypatch.setenv("FAIRLANE_ADMIN_KEY", "from the environment")
    status = fairlane(
        *("--url", url, "--csv", csv, "--no-keys", "--policies", "vtc, fcfs"),
        *("--out", str(tmp_path)),
    )
    assert status == 0
    assert asked == [(name, "from the environment") for name in ("vtc", "fcfs", "vtc")]
    assert {path.name for path in tmp_path.glob("*.run.json")} == {
        "mine.vtc.run.json",
        "mine.fcfs.run.json",
    }
