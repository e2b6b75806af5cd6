"""`fairlane config check`: each problem by its line, its field, and what to do about it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deployments import cli
from deployments.configuration.file import ServeFile, UnsoundFileError
from deployments.local_cluster import load

SOUND = """\
applications:
  - name: fairlane
    import_path: deployments.app:build
    args:
      clients:
        - {name: alice, keys: [sk-1]}
      router:
        max_wait_s: 5
      pools:
        - llm:
            model_loading_config: {model_id: org/model-3.1}
    deployments:
      - name: Router
        user_config:
          router: {max_body_bytes: 100}
"""


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)


def written(folder: Path, old: str = "", new: str = "") -> Path:
    """The sound file with one passage replaced."""
    assert old in SOUND
    path = folder / "my.yaml"
    path.write_text(SOUND.replace(old, new, 1) if old else SOUND)
    return path


def problems(path: Path) -> list[str]:
    """What is wrong with a file, its folder cut off."""
    try:
        found = ServeFile.read(path).check()
    except UnsoundFileError as error:
        found = list(error.lines)
    return [line.removeprefix(f"{path.parent}/") for line in found]


def test_a_sound_file_has_none_and_its_changes_hold(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert problems(path) == []
    app = load(path, routers=3).app
    assert (app.router.replicas, app.router.max_wait_s, app.router.max_body_bytes) == (3, 5, 100)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "max_wait_s: 5",
            "max_wait: 5",
            "my.yaml:8: applications[0].args.router.max_wait: unknown field; did you mean "
            "`max_wait_s`?",
        ),
        (
            "max_wait_s: 5",
            "max_wait_s: 0",
            "my.yaml:8: applications[0].args.router.max_wait_s: should be greater than 0; seconds "
            "to wait for one's turn, then 503",
        ),
        (
            "keys: [sk-1]",
            "weight: lots",
            "my.yaml:6: applications[0].args.clients[0].weight: should be a valid number, unable "
            "to parse string as a number; its share next to others (twice as much with 2)",
        ),
        (
            "keys: [sk-1]",
            "group: acme",
            "my.yaml:6: applications[0].args.clients[0].group: alice is in the group acme, which "
            "is not under `groups`; add {name: acme} there",
        ),
        (
            "{name: alice, keys: [sk-1]}",
            "{keys: [sk-1]}",
            "my.yaml:6: applications[0].args.clients[0].name: is missing; give it: who is billed. "
            "More can be made while it runs: clients",
        ),
        (
            "max_body_bytes: 100",
            "max_body_bytes: -1",
            "my.yaml:15: applications[0].deployments[0].user_config.router.max_body_bytes: should "
            "be greater than 0; larger request bodies are refused (413); bytes",
        ),
        (
            "router: {max_body_bytes: 100}",
            "policy: fcfs",
            "my.yaml:15: applications[0].deployments[0].user_config.policy: can't be changed "
            "without a restart; move it to `args`",
        ),
        (
            "router: {max_body_bytes: 100}",
            "clients: [{name: bob, group: acme}]",
            "my.yaml:15: applications[0].deployments[0].user_config.clients[0].group: bob is in "
            "the group acme, which is not under `groups`; add {name: acme} there",
        ),
        (
            "name: Router\n        user_config:\n          router: {max_body_bytes: 100}",
            "name: Replica:org/model-3.1",
            "my.yaml:13: applications[0].deployments[0].name: no deployment of Fairlane; did you "
            "mean `Replica:org--model-3_1`?",
        ),
        (
            "user_config:\n          router: {max_body_bytes: 100}",
            "num_replica: 3",
            "my.yaml:14: applications[0].deployments[0].num_replica: Serve knows no such field; "
            "did you mean `num_replicas`?",
        ),
        (
            "max_wait_s: 5",
            "max_wait_s: 5\n        max_wait_s: 6",
            "my.yaml:9: applications[0].args.router.max_wait_s: is written twice; leave one of "
            "them",
        ),
        (
            "import_path: deployments.app:build",
            "import_path: elsewhere:build",
            "my.yaml:1: applications: should have one application of Fairlane; give one the "
            "import_path deployments.app:build",
        ),
        (
            "- llm:\n            model_loading_config: {model_id: org/model-3.1}",
            "[]",
            "my.yaml:9: applications[0].args.pools: should have at least 1 item; the models, each "
            "with its replicas",
        ),
        (
            "- llm:",
            "- lookahed: 2\n          llm:",
            "my.yaml:10: applications[0].args.pools[0].lookahed: unknown field; did you mean "
            "`lookahead`?",
        ),
        ("args:", "args: [", "my.yaml:6: is not YAML: "),
    ],
)
def test_a_problem_is_named_with_its_mend(tmp_path: Path, old: str, new: str, line: str) -> None:
    (found,) = problems(written(tmp_path, old, new))
    assert found == line or (line.endswith(": ") and found.startswith(line))


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, "router:\n        max_wait_s: 5", "router: 5\n      burst: -1")
    assert [line.split(":")[1:3] for line in problems(path)] == [
        ["7", " applications[0].args.router"],
        ["8", " applications[0].args.burst"],
    ]


def test_what_stands_in_a_field_is_never_shown(tmp_path: Path) -> None:
    for old, new in (
        ("keys: [sk-1]", "key_hashes: [hunter2]"),
        ("keys: [sk-1]", "keys: hunter2"),
        ("keys: [sk-1]", "weight: hunter2"),
        ("keys: [sk-1]", "keys: [*hunter2]"),
        ("keys: [sk-1]}", "keys: [hunter2]}\n        - {name: bob, keys: [hunter2]}"),
        ("router:\n", "store: {url: 'http://:hunter2@db'}\n      router:\n"),
        ("router:\n", "store: {password: hunter2, password_file: f}\n      router:\n"),
    ):
        found = problems(written(tmp_path, old, new))
        assert found
        assert not any("hunter2" in line for line in found)


def test_serving_refuses_with_the_same_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "max_wait_s: 5", "max_wait: 5")
    with pytest.raises(SystemExit, match=r"my.yaml:8: .*did you mean `max_wait_s`"):
        load(path)


def test_the_command_exits_with_1_when_there_are_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for (old, new), status in ((("", ""), 0), (("name: alice", "nme: a"), 1)):
        path = written(tmp_path, old, new)
        monkeypatch.setattr(sys, "argv", ["fairlane", "config", "check", str(path)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == status
    assert "did you mean `name`?" in capsys.readouterr().out


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert problems(tmp_path / "no.yaml") == [
        "no.yaml: can't be read: No such file or directory; name another"
    ]
