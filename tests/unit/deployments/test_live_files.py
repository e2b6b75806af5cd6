"""Files that add clients and admin keys to the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.config import AppConfig
from deployments.live import live_settings
from router.clients import hash_key

ADMIN = hash_key("sk-admin")
ARGS = AppConfig(
    pools=[{"llm": {"model_loading_config": {"model_id": "tiny"}}}],  # type: ignore[arg-type]
    clients=[{"name": "alice", "keys": ["sk-1"]}],  # type: ignore[arg-type]
    admin_key_hashes=(ADMIN,),
).live()


def test_lists_are_added_to_what_is_configured(tmp_path: Path) -> None:
    clients, admin = tmp_path / "clients.yaml", tmp_path / "admin.yaml"
    clients.write_text("groups: [{name: acme}]\nclients: [{name: bob, group: acme}]\n")
    admin.write_text(f"admin_key_hashes: [{hash_key('sk-other')}]\n")
    live = live_settings(ARGS, {}, [str(clients), str(admin)])
    assert [client.name for client in live.clients.clients] == ["alice", "bob"]
    assert live.admin_key_hashes == (ADMIN, hash_key("sk-other"))


def test_they_are_added_to_a_user_config_too(tmp_path: Path) -> None:
    file = tmp_path / "clients.yaml"
    file.write_text("clients: [{name: bob}]\n")
    live = live_settings(ARGS, {"clients": [{"name": "carol"}]}, [str(file)])
    assert [client.name for client in live.clients.clients] == ["carol", "bob"]


def test_an_empty_file_adds_nothing(tmp_path: Path) -> None:
    file = tmp_path / "clients.yaml"
    file.write_text("# nobody yet\n")
    assert live_settings(ARGS, {}, [str(file)]) == live_settings(ARGS, {})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("clients: [{name: alice}]", "the same client stands in the configuration twice: alice"),
        ("clients: {name: bob}", "may have the lists groups, clients, admin_key_hashes"),
        ("router: {max_wait_s: 1}", "may have the lists"),
        ("clients: [", "is not YAML"),
        ("- sk-secret", "may have the lists"),
        (None, "can't be read: No such file or directory"),
    ],
)
def test_an_unsound_file_is_named_and_not_repeated(
    tmp_path: Path, text: str | None, why: str
) -> None:
    file = tmp_path / "clients.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=why) as caught:
        live_settings(ARGS, {}, [str(file)])
    assert "sk-secret" not in str(caught.value)
