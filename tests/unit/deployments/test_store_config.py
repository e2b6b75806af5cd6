"""How the store is configured: what fits together, and what is said about what does not."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from deployments.config import StoreConfig
from fairness.store.settings import Credentials, StoreSettings, Tls


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)


def test_everything_reaches_the_settings() -> None:
    config = StoreConfig(
        url="rediss+sentinel://s1,s2/fair",
        username="ann",
        password_file="/run/secrets/store",
        sentinel_username="spy",
        sentinel_password="hunter2",
        ca_file="ca.pem",
        cert_file="own.pem",
        key_file="own.key",
        connect_timeout_s=0.5,
        call_timeout_s=1.5,
    )
    assert config.settings() == StoreSettings(
        "rediss+sentinel://s1,s2/fair",
        Credentials("ann", None, "/run/secrets/store"),
        Credentials("spy", "hunter2", None),
        Tls("ca.pem", "own.pem", "own.key"),
        0.5,
        1.5,
    )
    assert "hunter2" not in repr(config)
    assert "hunter2" not in repr(config.settings())


def test_the_environment_names_another_store(monkeypatch: pytest.MonkeyPatch) -> None:
    config = StoreConfig(url="redis://db")
    monkeypatch.setenv("REDIS_URL", "redis+cluster://n1,n2")
    assert config.settings().url == "redis+cluster://n1,n2"
    monkeypatch.setenv("REDIS_URL", "memcached://:hunter2@db")
    with pytest.raises(ValueError, match="REDIS_URL in the environment: unknown scheme") as error:
        config.settings()
    assert "hunter2" not in str(error.value)


def test_what_the_environment_hides_does_not_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLANE_STORE_PASSWORD", "hunter2")
    assert b"hunter2" not in pickle.dumps(StoreConfig(url="redis://db").settings())


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"url": "http://db"}, r"store.url: unknown scheme 'http'; use one of redis://, unix://"),
        ({"url": "redis+sentinel://s1"}, "store.url: name the master"),
        ({"url": "redis://:hunter2@db", "password": "x"}, "store.url has a password"),
        ({"url": "redis://ann@db", "username": "bob"}, "store.url has a user"),
        (
            {"url": "redis://db", "password": "hunter2", "password_file": "f"},
            "store.password and store.password_file: give only one",
        ),
        (
            {"sentinel_password": "hunter2", "sentinel_password_file": "f"},
            "store.sentinel_password and store.sentinel_password_file",
        ),
        ({"cert_file": "own.pem"}, "store.cert_file and store.key_file belong together"),
        ({"connect_timeout_s": 3}, "lower it"),
        ({"call_timeout_s": 0}, "greater than 0"),
        ({"password_fil": "f"}, "password_fil"),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why) as error:
        StoreConfig(**fields)
    assert "hunter2" not in str(error.value)


def test_tls_files_without_tls_are_refused() -> None:
    config = StoreConfig(url="redis://db", ca_file="ca.pem")
    with pytest.raises(ValueError, match="rediss://"):
        config.settings()
