"""Keys of a workload's clients: where they come from, and that they don't get out."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from loadtests.client_keys import (
    NO_KEYS,
    KeysError,
    lent_keys,
    new_keys,
    read_keys,
    template_keys,
    with_clients,
    write_keys,
)
from loadtests.workloads.workload import Request, Workload
from router.clients import hash_key


def workload(*clients: str, keys: int = 1, weights: dict[str, float] | None = None) -> Workload:
    """One request of each key of each client."""
    requests = tuple(Request(0.0, c, 1, 1, key=key) for c in clients for key in range(keys))
    return Workload("some", requests, weights or {})


def test_a_csv_file_may_give_a_client_several_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys.csv"
    file.write_text("client,key\nalice,k1\nbob,k2\nalice,k3\n")
    keys = read_keys(file)
    assert keys.clients == ("alice", "bob")
    assert [keys.key("alice", number) for number in range(3)] == ["k1", "k3", "k1"]
    assert keys.key("bob") == "k2"
    assert keys.key("carol") is None


def test_a_json_file_too(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"alice": ["k1", "k3"], "bob": "k2"}))
    keys = read_keys(file)
    assert (keys.of("alice"), keys.of("bob")) == (("k1", "k3"), ("k2",))


@pytest.mark.parametrize(
    "text", ["", "alice,sk-secret\n", "client,key\nalice\n", "client,key\nalice,  \n"]
)
def test_an_unreadable_file_is_told_without_quoting_it(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys.csv"
    file.write_text(text)
    try:
        keys = read_keys(file)
    except KeysError as error:
        assert "sk-secret" not in str(error)
        assert "CSV with the columns client,key" in str(error)
    else:
        with pytest.raises(KeysError, match="lack keys"):
            keys.require(workload("alice"))


def test_json_that_is_no_object(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    for text in ("[]", "{", '{"alice": 3}', '{"alice": [""]}'):
        file.write_text(text)
        with pytest.raises(KeysError):
            read_keys(file)


def test_keys_are_not_shown() -> None:
    keys = template_keys(workload("alice"), "sk-secret-{client}")
    assert "secret" not in repr(keys)
    assert "secret" not in str(keys)


def test_a_client_that_uses_more_keys_than_it_has_is_told() -> None:
    one = template_keys(workload("alice"), "k-{client}")
    with pytest.raises(KeysError, match=r"alice \(uses 8, has 1\)"):
        one.require(workload("alice", keys=8))
    with pytest.raises(KeysError, match="2 clients of some lack keys"):
        NO_KEYS.require(workload("alice", "bob"))


def test_a_template_numbers_keys() -> None:
    keys = template_keys(workload("alice", keys=2), "sk-{client}-{number}")
    assert keys.of("alice") == ("sk-alice-0", "sk-alice-1")


def test_development_keys_are_lent_to_small_workloads() -> None:
    owners = {"alice": ("ka",), "bob": ("kb",)}
    lent = lent_keys(workload("bob", "flooder"), owners)
    assert (lent.key("bob"), lent.key("flooder")) == ("kb", "ka")
    with pytest.raises(KeysError, match="generate-config"):
        lent_keys(workload("a", "b", "c"), owners)
    with pytest.raises(KeysError, match="weights"):
        lent_keys(workload("a", weights={"a": 2.0}), owners)


def test_new_keys_are_written_for_their_owner_only_and_read_again(tmp_path: Path) -> None:
    asked = workload("alice", "bob", keys=2)
    keys = new_keys(asked)
    file = tmp_path / "sub" / "keys.csv"
    write_keys(file, keys, asked.clients)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = read_keys(file)
    assert [again.of(client) for client in asked.clients] == [
        keys.of(client) for client in asked.clients
    ]
    assert len({key for client in asked.clients for key in keys.of(client)}) == 4
    with pytest.raises(FileExistsError):
        write_keys(file, keys, asked.clients)


def test_a_configuration_that_knows_the_clients_holds_hashes_only() -> None:
    content = {
        "applications": [
            {"args": {"clients": [{"name": "carol", "keys": ["k"]}, {"name": "alice"}]}}
        ]
    }
    asked = workload("alice", "bob", weights={"bob": 3.0})
    made = with_clients(content, asked, template_keys(asked, "sk-{client}"))
    assert made["applications"][0]["args"]["clients"] == [
        {"name": "carol", "keys": ["k"]},
        {"name": "alice", "key_hashes": [hash_key("sk-alice")]},
        {"name": "bob", "weight": 3.0, "key_hashes": [hash_key("sk-bob")]},
    ]
    assert content["applications"][0]["args"]["clients"][1] == {"name": "alice"}
    with pytest.raises(KeysError, match="no application"):
        with_clients({}, asked, NO_KEYS)


@pytest.mark.parametrize(
    ("live", "joins"),
    [
        ({"clients": [{"name": "carol"}], "router": {"max_wait_s": 9}}, True),
        ({"clients": []}, True),
        ({"router": {"max_wait_s": 9}}, False),
        (None, False),
    ],
)
def test_clients_join_those_that_change_without_a_restart(
    live: dict[str, Any] | None, joins: bool
) -> None:
    replicas = {"name": "Replica:tiny", "num_replicas": 2}
    deployments = [replicas, {"name": "Router", "user_config": live}]
    application = {"args": {"clients": [{"name": "dora"}]}, "deployments": deployments}
    asked = workload("alice")
    keys = template_keys(asked, "sk-{client}")
    (made,) = with_clients({"applications": [application]}, asked, keys)["applications"]
    stays, routers = made["deployments"]
    assert stays == replicas
    here, there = [c["name"] for c in made["args"]["clients"]], routers["user_config"]
    assert here == (["dora"] if joins else ["dora", "alice"])
    if joins:
        assert live is not None
        before = [client["name"] for client in live["clients"]]
        assert [client["name"] for client in there["clients"]] == [*before, "alice"]
        assert live | {"clients": None} == there | {"clients": None}
    else:
        assert there == live
