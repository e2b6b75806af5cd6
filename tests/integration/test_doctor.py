"""`fairlane doctor` on real servers, and on things that are not as they should be."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from deployments.doctor import application, machine, software, store
from deployments.doctor.finding import Finding, State
from fairness.store.settings import Credentials, StoreSettings
from tests.integration.servers import Server, redis_binary, valkey_binary
from tests.integration.test_connections import SECRET, documented_acl

ROOT = Path(__file__).parents[2]
GOOD = ("appendonly yes", "maxmemory 64mb", "maxmemory-policy noeviction")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REDIS_URL", "FAIRLANE_STORE_USERNAME", "FAIRLANE_STORE_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


def states(found: Sequence[Finding]) -> dict[str, State]:
    for finding in found:
        assert (finding.state is State.OK) or finding.mend, finding
    return {finding.about: finding.state for finding in found}


@pytest.mark.parametrize("binary", [valkey_binary, redis_binary])
def test_a_store_as_it_should_be(tmp_path: Path, binary: object) -> None:
    with Server(tmp_path, GOOD, binary=binary()) as server:  # type: ignore[operator]
        found = list(store.look(StoreSettings(server.plain_url)))
    assert set(states(found)) == {
        "version", "persistence", "eviction", "role", "distance", "clock", "permissions",
    }  # fmt: skip
    assert not [finding for finding in found if finding.state is State.FAILED]
    assert not [f for f in found if f.state is not State.OK and f.about != "distance"]


def test_a_store_that_forgets(tmp_path: Path) -> None:
    lines = ("appendonly no", "maxmemory 64mb", "maxmemory-policy allkeys-lru")
    with Server(tmp_path, lines) as server:
        found = states(list(store.look(StoreSettings(server.plain_url))))
    assert found["persistence"] is State.WARNING
    assert found["eviction"] is State.FAILED


def test_a_replica_in_place_of_the_master(tmp_path: Path) -> None:
    (tmp_path / "master").mkdir()
    (tmp_path / "replica").mkdir()
    with (
        Server(tmp_path / "master") as master,
        Server(tmp_path / "replica", (f"replicaof 127.0.0.1 {master.port}",)) as replica,
    ):
        found = states(list(store.look(StoreSettings(replica.plain_url))))
    assert found["role"] is State.FAILED
    assert found["permissions"] is State.FAILED  # it takes no writes


def test_a_wrong_password_is_told_and_not_shown(tmp_path: Path) -> None:
    with Server(tmp_path, (f"requirepass {SECRET}",), password=SECRET) as server:
        settings = StoreSettings(server.plain_url, Credentials(password="sk-wrong"))
        (finding,) = store.look(settings)
    assert (finding.about, finding.state) == ("reachable", State.FAILED)
    assert "sk-wrong" not in str(finding)


def test_the_documented_user_suffices_but_for_settings(tmp_path: Path) -> None:
    with Server(tmp_path, GOOD, password="admin") as server:
        server.ask(*documented_acl())
        found = states(
            list(store.look(StoreSettings(server.plain_url, Credentials("fairlane", SECRET))))
        )
        assert (found["permissions"], found["settings"]) == (State.OK, State.SKIPPED)
        server.ask("ACL", "SETUSER", "fairlane", "-evalsha")
        found = states(
            list(store.look(StoreSettings(server.plain_url, Credentials("fairlane", SECRET))))
        )
        assert found["permissions"] is State.FAILED


def test_no_store_there() -> None:
    (finding,) = store.look(StoreSettings("redis://127.0.0.1:1/0"))
    assert finding.state is State.FAILED


def test_a_taken_port_is_told() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        found = states(list(machine.look(http_port=port)))
    assert found[f"port {port}"] is State.WARNING
    assert found["memory"] in (State.OK, State.WARNING)


def test_a_url_that_is_not_fairlanes() -> None:
    (finding,) = application.look("http://127.0.0.1:1", "http://127.0.0.1:1", None)
    assert (finding.about, finding.state) == ("reachable", State.FAILED)


def test_this_environment_is_fit() -> None:
    found = list(software.look())
    assert not [finding for finding in found if finding.state is State.FAILED], found


def test_a_package_of_the_wrong_version_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "version", lambda name: "0.0.1")
    found = {finding.about: finding for finding in software._packages()}
    assert found["redis"].state is State.FAILED
    assert "0.0.1, not >=8.1" in found["redis"].found
    assert found["redis"].mend == "pip install 'redis>=8.1'"


def test_a_vllm_without_the_schedulers_hooks_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vllm")
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler

    monkeypatch.setattr(AsyncScheduler, "schedule", None)
    finding = software._hooks()
    assert finding.state is State.FAILED
    assert "schedule" in finding.found


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deployments.cli", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_the_command_speaks_json_and_fails_when_something_has(tmp_path: Path) -> None:
    done = doctor("--json", "--only", "configuration,store")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["ok"] is True
    assert {finding["area"] for finding in said["findings"]} == {"configuration", "store"}

    broken = tmp_path / "broken.yaml"
    text = (ROOT / "deployments/local.yaml").read_text()
    broken.write_text(text.replace("policy: vtc", "polices: vtc"))
    done = doctor(str(broken), "--only", "configuration,store")
    assert done.returncode == 1
    assert "did you mean `policy`?" in done.stdout

    done = doctor("--only", "soul")
    assert done.returncode == 2
    assert "no area soul" in done.stderr
