"""`fairlane clients` and its like: what they send, and what they say when it can't be done."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments import cli
from deployments.admin.api import AdminApi, CommandError, admin_key, path_of
from deployments.admin.arguments import SECONDS, day, key_id, seconds, weight
from deployments.admin.usage import INCOMPLETE, usage
from router.admin import usage as admin_usage

Handler = Callable[[httpx.Request], httpx.Response]


def api(handler: Handler) -> AdminApi:
    return AdminApi("http://fairlane/", "sk-admin", httpx.MockTransport(handler))


def why(handler: Handler) -> str:
    with pytest.raises(CommandError) as error:
        api(handler).ask("GET", "/clients")
    assert "sk-admin" not in str(error.value)
    return str(error.value)


def fairlane(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit status of a command."""
    monkeypatch.setattr(sys, "argv", ["fairlane", *arguments])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert isinstance(end.value.code, int)
    return end.value.code


def test_requests_carry_the_key_and_paths_are_quoted() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer sk-admin"
        return httpx.Response(200, json=str(request.url))

    asked = api(answer).ask("GET", path_of("groups", "acme/ml"))
    assert asked == "http://fairlane/admin/groups/acme/ml"
    assert path_of("clients", "a b?#%") == "/clients/a%20b%3F%23%25"


def test_lists_are_read_to_their_end() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.params["search"] == "x"
        pages: dict[str, Any] = {
            "": {"clients": [{"name": "a"}], "next": "a"},
            "a": {"clients": [], "next": "m"},
            "m": {"clients": [{"name": "z"}], "next": None},
        }
        return httpx.Response(200, json=pages[request.url.params["after"]])

    names = [client["name"] for client in api(answer).pages("clients", search="x")]
    assert names == ["a", "z"]


def test_errors_say_what_to_do() -> None:
    def unreachable(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("Connection refused")

    def error(status: int, code: str | int = "x") -> Handler:
        body = {"error": {"message": "the mend", "type": "x", "param": None, "code": code}}
        return lambda request: httpx.Response(status, json=body)

    assert "--base-url" in why(unreachable)
    assert why(error(409)) == "the mend"
    assert why(error(404, "client_not_found")) == "the mend"
    assert "admin.port" in why(error(404, 404))
    assert "does not take this admin key" in why(error(401))
    assert "not as Fairlane does" in why(lambda request: httpx.Response(502, text="<html>"))
    assert "not as Fairlane does" in why(lambda request: httpx.Response(404, json=[]))


def test_the_admin_key_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FAIRLANE_ADMIN_KEY", raising=False)
    with pytest.raises(CommandError, match="--admin-key-file"):
        admin_key(None)
    monkeypatch.setenv("FAIRLANE_ADMIN_KEY", "sk-environment")
    assert admin_key(None) == "sk-environment"
    file = tmp_path / "key"
    with pytest.raises(CommandError, match="can't be read"):
        admin_key(file)
    file.write_text("\n")
    with pytest.raises(CommandError, match="empty"):
        admin_key(file)
    file.write_text("sk-file\n")
    assert admin_key(file) == "sk-file"


def test_a_key_that_no_header_can_carry_is_an_error_too() -> None:
    with pytest.raises(CommandError, match="can't be used"):
        AdminApi("http://fairlane", "sk-é\u20ac")


def test_a_csv_that_breaks_off_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert INCOMPLETE == admin_usage.INCOMPLETE
    broken = f"day,requests\r\n2026-11-30,3\r\n{INCOMPLETE} try again\r\n"
    asked = argparse.Namespace(csv=True, by="day", client=None, group=None, to=None)
    setattr(asked, "from", None)
    with pytest.raises(CommandError, match="try again"):
        usage(api(lambda request: httpx.Response(200, text=broken)), asked)
    assert capsys.readouterr().out == "day,requests\n2026-11-30,3\n"


def test_a_key_is_named_by_its_id_and_a_key_itself_is_not_repeated() -> None:
    assert key_id("0123456789ab") == "0123456789ab"
    for wrong in ("sk-fl-secret", "0123456789AB", "0123", ""):
        with pytest.raises(argparse.ArgumentTypeError, match="keys list") as error:
            key_id(wrong)
        assert not wrong or wrong not in str(error.value)


def test_a_day_is_written_with_its_year_first() -> None:
    assert day("2026-11-30") == "2026-11-30"
    for text in ("2026-02-30", "yesterday", "30.11.2026"):
        with pytest.raises(argparse.ArgumentTypeError, match="write it as"):
            day(text)


@given(st.integers(0, 10**9), st.sampled_from(sorted(SECONDS)))
def test_durations(number: int, unit: str) -> None:
    assert seconds(f"{number}{unit}") == number * SECONDS[unit]


@given(st.text(max_size=6))
def test_other_text_is_no_duration_or_weight(text: str) -> None:
    """Whatever is typed is understood or refused with words."""
    for kind in (seconds, weight):
        try:
            assert kind(text) >= 0
        except argparse.ArgumentTypeError as error:
            assert "write a number" in str(error)


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "heavy"])
def test_a_weight_is_above_zero(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        weight(text)


def test_without_a_key_or_a_change_nothing_is_sent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FAIRLANE_ADMIN_KEY", raising=False)
    assert fairlane(monkeypatch, "clients", "list") == 1
    assert "no admin key" in capsys.readouterr().err
    monkeypatch.setenv("FAIRLANE_ADMIN_KEY", "sk-admin")
    assert fairlane(monkeypatch, "clients", "set", "alice") == 1
    assert "nothing to change" in capsys.readouterr().err


@pytest.mark.parametrize("family", ["clients", "groups", "keys"])
def test_help_teaches_by_example(
    family: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fairlane(monkeypatch, family, "--help") == 0
    assert "fairlane keys rotate" in capsys.readouterr().out
