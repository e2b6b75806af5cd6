"""Nothing of the admin API is reached without its key, and no more than so much is read."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from router.admin.guard import MAX_BODY_BYTES, AdminKeys, Guard
from router.clients import hash_key, key_id
from router.directory.records import Actor
from router.errors import ApiError

KEYS = AdminKeys([hash_key("sk-one"), hash_key("sk-two")])


class Behind:
    """What the guard has let through."""

    def __init__(self) -> None:
        self.scopes: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        self.bodies.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        assert (await receive())["type"] == "http.disconnect"


async def ask(behind: Any, **options: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app=Guard(KEYS, behind))
    async with httpx.AsyncClient(transport=transport, base_url="http://router") as http:
        return await http.post("/admin/clients", **options)


def test_any_admin_key_is_told_by_its_id() -> None:
    for key in ("sk-one", "sk-two"):
        assert KEYS.check(f"Bearer {key}") == key_id(hash_key(key))
    for header in (None, "", "Bearer ", "Bearer sk-three", f"Bearer {hash_key('sk-one')}"):
        with pytest.raises(ApiError) as error:
            KEYS.check(header)
        assert error.value.status == 401
    with pytest.raises(ApiError):
        AdminKeys([]).check("Bearer sk-one")


async def test_what_is_behind_learns_who_asks_from_where_and_the_whole_body() -> None:
    behind = Behind()
    headers = {
        "Authorization": "Bearer sk-one",
        "X-Forwarded-For": "10.0.0.9",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    answer = await ask(behind, headers=headers, content=b'{"name": "a"}')
    assert answer.status_code == 200
    assert behind.bodies == [b'{"name": "a"}']
    (scope,) = behind.scopes
    who = Actor(key_id(hash_key("sk-one")), "127.0.0.1 for 10.0.0.9")
    assert scope["state"]["actor"] == who
    kinds = [value for name, value in scope["headers"] if name == b"content-type"]
    assert kinds == [b"application/json"]


async def test_strangers_and_large_bodies_reach_nothing() -> None:
    behind = Behind()
    answer = await ask(behind, content=b"{}")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    large = b"x" * (MAX_BODY_BYTES + 1)
    answer = await ask(behind, headers={"Authorization": "Bearer sk-one"}, content=large)
    assert (answer.status_code, json.loads(answer.text)["error"]["code"]) == (413, "body_too_large")
    assert behind.scopes == []


async def test_what_claims_to_be_from_afar_is_bounded() -> None:
    behind = Behind()
    headers = {"Authorization": "Bearer sk-one", "X-Forwarded-For": "x" * 5000}
    await ask(behind, headers=headers)
    assert len(behind.scopes[0]["state"]["actor"].origin) == 200
