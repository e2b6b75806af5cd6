"""Configurations: the ready-made ones are sound, unsound ones are refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

import deployments
from deployments.config import AppConfig
from router.clients import Group, hash_key

FOLDER = Path(deployments.__file__).parent
POOL: dict[str, Any] = {"llm": {"model_loading_config": {"model_id": "tiny"}}}


def named(model: str) -> dict[str, Any]:
    return {"llm": {"model_loading_config": {"model_id": model}}}


def args_of(name: str) -> dict[str, Any]:
    (application,) = yaml.safe_load((FOLDER / name).read_text())["applications"]
    assert application["import_path"] == "deployments.app:build"
    return dict(application["args"])


def test_local_has_development_clients() -> None:
    config = AppConfig(**args_of("local.yaml"))
    clients = {client.name: client for client in config.configured().clients}
    assert {name: client.weight for name, client in clients.items()} == {
        "alice": 1,
        "bob": 1,
        "carol": 2,
    }
    assert config.admin_hashes() == (hash_key("sk-local-admin"),)


def test_gpu_has_no_keys_and_no_embedded_store() -> None:
    config = AppConfig(**args_of("gpu.yaml"))
    assert config.configured().keys == ()
    assert config.admin_hashes() == ()
    assert config.store.url.startswith("redis://")


def test_both_files_have_the_same_shape() -> None:
    local, gpu = args_of("local.yaml"), args_of("gpu.yaml")
    assert set(gpu) - {"admin_key_hashes"} <= set(local)


def test_redis_url_overrides_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    config = AppConfig(pools=(POOL,))
    assert config.store.resolved() == "embedded"
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")
    assert config.store.resolved() == "redis://elsewhere"


def test_usage_is_kept_for_as_long_as_configured() -> None:
    assert AppConfig(pools=(POOL,)).queue_settings().usage_retention_days == 400
    config = AppConfig(pools=(POOL,), usage={"retention_days": 31})
    assert config.queue_settings().usage_retention_days == 31


def test_clients_are_in_groups_outermost_first() -> None:
    config = AppConfig(
        pools=(POOL,),
        groups=({"name": "acme", "weight": 2}, {"name": "acme/ml"}),
        clients=(
            {"name": "alice", "group": "acme/ml", "keys": ["sk-1"]},
            {"name": "bob", "group": "acme"},
            {"name": "carol"},
        ),
    )
    configured = config.configured()
    acme, ml = Group("acme", 2), Group("acme/ml", 1)
    assert configured.groups == (acme, ml)
    assert [client.groups for client in configured.clients] == [(acme, ml), (acme,), ()]
    assert configured.keys == ((hash_key("sk-1"), configured.clients[0]),)


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({"pools": []}, "pools"),
        ({"pools": [{"llm": {}}]}, "model_id"),
        ({"pools": [POOL], "polcy": "vtc"}, "polcy"),
        ({"pools": [POOL], "policy": "random"}, "vtc"),
        ({"pools": [POOL, POOL]}, "same model"),
        ({"pools": [named("a/b"), named("a--b")]}, "one name to Serve"),
        ({"pools": [{**POOL, "price": 0}]}, "greater than 0"),
        ({"pools": [{**POOL, "adapters": {"tiny": "/a"}}]}, "same model"),
        ({"pools": [{**POOL, "adapters": {"image": "/a"}}]}, "choose another"),
        ({"pools": [POOL], "clients": [{"name": "a"}, {"name": "a"}]}, "same client"),
        (
            {"pools": [POOL], "clients": [{"name": n, "keys": ["k"]} for n in "ab"]},
            "same key",
        ),
        ({"pools": [POOL], "clients": [{"name": "a", "weight": 0}]}, "greater than 0"),
        (
            {"pools": [POOL], "clients": [{"name": "a", "keys": ["k"]}], "admin_keys": ["k"]},
            "same key",
        ),
        ({"pools": [POOL], "groups": [{"name": "a"}, {"name": "a"}]}, "same group"),
        ({"pools": [POOL], "groups": [{"name": "a/b/c"}]}, "pattern"),
        ({"pools": [POOL], "groups": [{"name": "a/b"}]}, "a/b is in the group a, which is not"),
        ({"pools": [POOL], "clients": [{"name": "a", "group": "b"}]}, "under `groups`"),
        ({"pools": [POOL], "admin": {"port": 0}}, "greater than or equal"),
        ({"pools": [POOL], "clients": [{"name": "a", "key_hashes": ["sk-1"]}]}, "hash-key"),
        ({"pools": [POOL], "cost": {"input": -1}}, "greater than or equal"),
    ],
)
def test_unsound_configurations_are_refused(args: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        AppConfig(**args)
