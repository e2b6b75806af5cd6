"""Keys name clients; only hashes are kept."""

from __future__ import annotations

import pytest

from router.clients import Client, Clients, hash_key
from router.errors import ApiError

ALICE = Client("alice", 2.0)
CLIENTS = Clients(
    [(hash_key("sk-1"), ALICE), (hash_key("sk-2"), ALICE), (hash_key("sk-3"), Client("bob"))],
    [hash_key("sk-admin")],
)


@pytest.mark.parametrize("header", ["Bearer sk-1", "bearer sk-2", "Bearer  sk-1 "])
def test_any_of_its_keys_names_a_client(header: str) -> None:
    assert CLIENTS.client(header) is ALICE


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic sk-1", "sk-1", "Bearer sk-admin", "Bearer é\udcff"],
)
def test_others_are_401(header: str | None) -> None:
    with pytest.raises(ApiError) as error:
        CLIENTS.client(header)
    assert error.value.status == 401
    assert (b"www-authenticate", b"Bearer") in error.value.headers()


def test_only_admin_keys_are_admin() -> None:
    CLIENTS.check_admin("Bearer sk-admin")
    with pytest.raises(ApiError):
        CLIENTS.check_admin("Bearer sk-1")


def test_each_client_is_listed_once() -> None:
    assert [client.name for client in CLIENTS.all] == ["alice", "bob"]


def test_no_key_is_kept() -> None:
    assert "sk-1" not in repr(vars(CLIENTS))
