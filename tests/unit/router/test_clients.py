"""Keys name clients; only hashes are kept."""

from __future__ import annotations

import pytest

from router.clients import Client, Clients, hash_key
from router.errors import ApiError

ALICE = Client("alice", 2.0)
CAROL = Client("carol")
KEYS = [(hash_key("sk-1"), ALICE), (hash_key("sk-2"), ALICE), (hash_key("sk-3"), Client("bob"))]
CLIENTS = Clients(KEYS)


class Directory:
    """Knows one key, and what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def client(self, hashed: str) -> Client:
        self.asked.append(hashed)
        return CAROL


@pytest.mark.parametrize("header", ["Bearer sk-1", "bearer sk-2", "Bearer  sk-1 "])
async def test_any_of_its_keys_names_a_client(header: str) -> None:
    assert await CLIENTS.client(header) is ALICE


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic sk-1", "sk-1", "Bearer sk-admin", "Bearer é\udcff"],
)
async def test_others_are_401(header: str | None) -> None:
    with pytest.raises(ApiError) as error:
        await CLIENTS.client(header)
    assert error.value.status == 401
    assert (b"www-authenticate", b"Bearer") in error.value.headers()


async def test_the_directory_is_asked_by_hash_and_only_for_keys_the_configuration_lacks() -> None:
    directory = Directory()
    clients = Clients(KEYS, directory)
    assert await clients.client("Bearer sk-1") is ALICE
    assert directory.asked == []
    assert await clients.client("Bearer sk-9") is CAROL
    assert directory.asked == [hash_key("sk-9")]


def test_no_key_is_kept() -> None:
    assert "sk-1" not in repr(vars(CLIENTS))
