"""Who we are to the store: looked up where the connection is made."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from redis.exceptions import AuthenticationError

from fairness.store.credentials import STORE_VARIABLES, LocalCredentials
from fairness.store.settings import Credentials, StoreSettings


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in STORE_VARIABLES:
        monkeypatch.delenv(variable, raising=False)


def found(**configured: str) -> tuple[str, ...]:
    return LocalCredentials(Credentials(**configured), STORE_VARIABLES).get_credentials()


def test_nothing_configured_is_no_log_in() -> None:
    assert found() == ()


def test_a_password_alone_is_the_default_user_s() -> None:
    assert found(password="pw") == ("pw",)
    assert found(username="ann", password="pw") == ("ann", "pw")
    assert found(username="ann") == ("ann", "")


def test_a_file_is_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    credentials = LocalCredentials(Credentials(password_file=str(file)), STORE_VARIABLES)
    assert credentials.get_credentials() == ("first",)
    file.write_text(" second ")  # spaces are part of it, the line end is not
    assert credentials.get_credentials() == (" second ",)


def test_the_environment_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIRLANE_STORE_USERNAME", "eve")
    monkeypatch.setenv("FAIRLANE_STORE_PASSWORD", "env")
    assert found(username="ann", password="pw") == ("eve", "env")
    assert found(password_file=str(tmp_path / "absent")) == ("eve", "env")


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    with pytest.raises(AuthenticationError, match=f"{absent}: No such file"):
        found(password_file=str(absent))
    absent.write_text("\n")
    with pytest.raises(AuthenticationError, match="is empty"):
        found(password_file=str(absent))


def test_settings_travel_without_what_is_found_locally(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIRLANE_STORE_PASSWORD", "hunter2")
    file = tmp_path / "password"
    file.write_text("hunter2")
    settings = StoreSettings("redis://db", Credentials("ann", None, str(file)))
    luggage = pickle.dumps(settings)
    assert b"hunter2" not in luggage
    assert pickle.loads(luggage) == settings


def test_no_representation_shows_a_password() -> None:
    settings = StoreSettings("redis://:hunter2@db", Credentials("ann", "hunter2"))
    assert "hunter2" not in repr(settings)
