"""`fairlane clients`, `groups`, `keys`, `usage` and `audit` against a router on a real store."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from deployments import cli
from router.admin.port import AdminPort
from tests.integration.directories import until
from tests.integration.servers import Server
from tests.integration.test_admin import ADMIN, Router, router
from tests.integration.test_admin_usage import FEW, MANY, Past

pytestmark = pytest.mark.integration


class Terminal:
    """Somebody who types commands."""

    def __init__(
        self,
        router: Router,
        url: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """url: of the store."""
        self.router = router
        self.url = url
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    async def says(self, command: str, status: int = 0) -> str:
        """What a command prints: on standard output, or on standard error where it fails."""
        self._monkeypatch.setattr(sys, "argv", ["fairlane", *command.split()])
        with pytest.raises(SystemExit) as end:
            await asyncio.to_thread(cli.main)
        printed = self._capsys.readouterr()
        assert end.value.code == status, printed
        return printed.err if status else printed.out


@pytest_asyncio.fixture
async def terminal(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> AsyncIterator[Terminal]:
    with Server(tmp_path) as server:
        async with router(server.url) as one:
            port = AdminPort(one.guard, "127.0.0.1", 0)
            monkeypatch.setenv("FAIRLANE_BASE_URL", f"http://127.0.0.1:{port.port}")
            monkeypatch.setenv("FAIRLANE_ADMIN_KEY", ADMIN)
            yield Terminal(one, server.url, monkeypatch, capsys)
            await port.stop()


async def test_a_client_s_life(terminal: Terminal) -> None:
    says = terminal.says
    await says("groups add acme --weight 2")
    await says("groups add acme/ml")
    assert "acme/ml" in await says("clients add alice --group acme/ml --weight 0.5")
    shown = json.loads(await says("clients show alice --json"))
    assert (shown["weight"], shown["group"], shown["keys"]) == (0.5, "acme/ml", [])

    key = (await says("keys create alice --label laptop --expires 90d")).strip()
    assert key.startswith("sk-fl-")
    assert await terminal.router.status(key) == 200
    (listed,) = json.loads(await says("keys list alice --json"))
    assert (listed["label"], listed["state"]) == ("laptop", "active")
    assert key not in await says("keys list alice")
    new = (await says(f"keys rotate {listed['id']} --overlap 1h")).strip()
    assert await terminal.router.status(new) == 200
    assert "revoked" in await says(f"keys revoke {listed['id']}")
    await until(lambda: has(terminal.router, key, 401))
    assert await terminal.router.status(new) == 200

    assert "no" in await says("clients set alice --disable --weight 4")
    await until(lambda: has(terminal.router, new, 401))
    found = json.loads(await says("clients list --search LIC --json"))
    assert [(c["name"], c["weight"], c["enabled"]) for c in found] == [("alice", 4, False)]
    assert "alice" in await says("clients list --group acme/ml")
    await says("clients set alice --enable --no-group")
    await says("groups set acme --weight 3")
    assert "concurrency=4" in await says("groups set acme --limits concurrency=4,max_wait_s=0.5")
    limits = json.loads(await says("clients set alice --limits requests_per_minute=60 --json"))
    assert limits["limits"] == {"requests_per_minute": 60}
    assert json.loads(await says("groups set acme --limits none --json"))["limits"] == {}
    assert "write NAME=NUMBER" in await says("clients set alice --limits requests=6", 2)
    assert "nothing to change" in await says("groups set acme", 1)
    assert json.loads(await says("groups list --json --search acme/"))[0]["name"] == "acme/ml"
    await says("groups remove acme/ml")
    await says("groups remove acme")
    assert "alice" in await says("clients remove alice")
    told = await says("audit --limit 3")
    assert "client.remove" in told
    assert "client:alice" in told


async def test_usage_as_a_table_json_and_csv(terminal: Terminal) -> None:
    past = Past(terminal.url)
    day = await past.used(1, "alice", FEW)
    await past.used(1, "bob", MANY)
    for number in range(1001):  # more than a page
        await past.used(2, f"c{number}", FEW)
    await past.redis.aclose()
    of_day = f"usage --from {day} --to {day}"
    table = (await terminal.says(of_day)).splitlines()
    assert [line.split()[:4] for line in table] == [
        ["day", "client", "model", "requests"],
        [str(day), "alice", "tiny", "2"],
        [str(day), "bob", "tiny", "30"],
        ["in", "all", "32", "420"],
    ]
    (only,) = json.loads(await terminal.says("usage --json --by client --client bob"))
    assert (only["client"], only["output_tokens"]) == ("bob", 100)
    assert len(json.loads(await terminal.says("usage --json"))) == 1003
    lines = (await terminal.says("usage --csv --by day")).splitlines()
    assert lines[0].startswith("day,requests,")
    assert lines[2] == f"{day},32,420,5,108,631.0,1.5"
    assert "requests" in await terminal.says("usage --client nobody")
    assert "choose of" in await terminal.says("usage --csv --by mood", status=1)


async def test_tables_show_whole_names(terminal: Terminal) -> None:
    name = "n" * 128
    await terminal.says(f"clients add {name}")
    assert name in await terminal.says("clients list")
    await terminal.says(f"clients remove {name}")


async def test_what_can_t_be_done_is_one_line_on_standard_error(terminal: Terminal) -> None:
    for command, words in (
        ("clients set nobody --weight 2", "there is no client 'nobody'"),
        ("clients remove fixed", "change it under `clients`"),
        ("groups remove house", "change it under `groups`"),
        ("keys list nobody", "there is no client"),
        ("keys revoke 000000000000", "there is no key"),
        ("clients list --admin-key-file /dev/null", "is empty"),
        ("clients list --base-url http://127.0.0.1:9", "can't be reached"),
    ):
        said = await terminal.says(command, status=1)
        assert words in said, command
        assert said.count("\n") == 1
        assert ADMIN not in said


async def has(router: Router, key: str, status: int) -> bool:
    return await router.status(key) == status


async def test_shadow_mode_is_told(terminal: Terminal) -> None:
    assert "never switched on" in await terminal.says("shadow")
    await terminal.router.done("PUT", "/queue/policy", {"policy": "shadow"})

    async def switched() -> bool:
        return "0 grants, 0 of them" in await terminal.says("shadow")

    await until(switched)
    told = json.loads(await terminal.says("shadow --json"))
    assert told["shadow"]["share"] == 0
    assert {row["passed_over"] for row in told["clients"]} == {0}
