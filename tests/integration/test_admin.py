"""The admin API of two routers on a real store: what it does, refuses, and lets nobody see."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from deployments.embedded_store import free_port
from fairness.limits import NO_LIMITS
from fairness.limits import Limits as LevelLimits
from fairness.store.contract import QueueSettings
from fairness.store.locate import LocatedQueue, StoreSource
from fairness.store.settings import StoreSettings
from router.admin.app import admin_api
from router.admin.guard import MAX_BODY_BYTES, AdminKeys, Guard
from router.admin.port import AdminPort
from router.app import Limits, RouterApp
from router.clients import Client, Clients, Configured, Group, hash_key, key_id
from router.limits import QueueLimits
from router.trunks import Trunks
from router.turns import Turns
from tests.integration.directories import directory, patient, until
from tests.integration.servers import Server

pytestmark = pytest.mark.integration

ADMIN = "sk-admin"
FIXED = Client("fixed", 2.0, (Group("house", 3.0),))
CONFIGURED = Configured(
    (FIXED,),
    FIXED.groups,
    ((hash_key("sk-fixed"), FIXED),),
    classes=("interactive", "batch"),
)
SETTINGS = QueueSettings()


class Router:
    """One router, as clients and admins see it."""

    def __init__(self, app: RouterApp, guard: Guard, turns: Turns) -> None:
        self.app = app
        self.guard = guard
        self.clients = app.clients
        self.turns = turns
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://router"
        )

    async def admin(
        self, method: str, path: str, body: Any = None, key: str | None = ADMIN, **more: Any
    ) -> httpx.Response:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        if body is not None:
            more["json"] = body
        return await self.http.request(method, f"/admin{path}", headers=headers, **more)

    async def done(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of an admin's request that succeeds."""
        answer = await self.admin(method, path, body)
        assert answer.is_success, answer.text
        return answer.json()

    async def refused(self, method: str, path: str, body: Any = None) -> tuple[int, Any, str]:
        """(status, field, message) of one that does not."""
        answer = await self.admin(method, path, body)
        error = answer.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return answer.status_code, error["param"], error["message"]

    async def status(self, key: str) -> int:
        """What a client with the key gets."""
        headers = {"Authorization": f"Bearer {key}"}
        return (await self.http.get("/v1/models", headers=headers)).status_code


@asynccontextmanager
async def router(source: StoreSource, name: str = "router-1") -> AsyncIterator[Router]:
    async with AsyncExitStack() as stack:
        found = await stack.enter_async_context(directory(source, CONFIGURED))
        queue = await LocatedQueue.open(patient(source), "tiny", SETTINGS)
        turns = Turns(name, queue, QueueLimits(), SETTINGS)
        turns.start()
        stack.push_async_callback(turns.stop)
        trunks = Trunks(lambda: b"k")
        stack.push_async_callback(trunks.close)
        guard = admin_api(AdminKeys([hash_key(ADMIN)]), found, {"tiny": turns})
        clients = Clients(CONFIGURED.keys, found)
        app = RouterApp(name, clients, {"tiny": turns}, trunks, lambda: b"k", 15.0, Limits(), guard)
        yield Router(app, guard, turns)


@pytest_asyncio.fixture
async def routers(server_url: str) -> AsyncIterator[tuple[Router, Router]]:
    async with router(server_url) as one, router(server_url, "router-2") as other:
        yield one, other


async def everywhere(routers: tuple[Router, Router], key: str, status: int) -> None:
    """Return as soon as every router answers the key so."""

    async def same() -> bool:
        return {await one.status(key) for one in routers} == {status}

    await until(same)


async def test_from_a_new_client_to_its_end(routers: tuple[Router, Router]) -> None:
    one, other = routers
    await one.done("POST", "/groups", {"name": "acme", "weight": 2})
    await other.done("POST", "/groups", {"name": "acme/ml"})
    made = await one.done("POST", "/clients", {"name": "alice", "group": "acme/ml"})
    assert made["created_at"] is not None
    assert made | {"created_at": None} == {
        "name": "alice",
        "weight": 1.0,
        "group": "acme/ml",
        "priority_class": None,
        "enabled": True,
        "limits": {},
        "created_at": None,
        "source": "directory",
    }
    key = await other.done("POST", "/keys", {"client": "alice", "label": "laptop"})
    assert key["key"].startswith("sk-fl-")
    assert key["id"] == key_id(hash_key(key["key"]))
    await everywhere(routers, key["key"], 200)
    listed = await one.done("GET", "/keys?client=alice")
    assert [{**key, "key": None}] == [{**each, "key": None} for each in listed["keys"]]
    assert key["key"] not in json.dumps(listed)

    new = await one.done("POST", f"/keys/{key['id']}/rotate", {"overlap_s": 3600})
    assert (new["label"], new["expires_at"]) == ("laptop", None)
    assert (await one.done("GET", f"/keys/{key['id']}"))["expires_at"] is not None
    await everywhere(routers, new["key"], 200)
    await everywhere(routers, key["key"], 200)
    assert (await other.done("POST", f"/keys/{key['id']}/revoke"))["state"] == "revoked"
    await everywhere(routers, key["key"], 401)
    await everywhere(routers, new["key"], 200)

    await one.done("PATCH", "/clients/alice", {"enabled": False})
    await everywhere(routers, new["key"], 401)
    changed = await one.done("PATCH", "/clients/alice", {"enabled": True, "weight": 3})
    assert (changed["weight"], changed["group"]) == (3, "acme/ml")
    await everywhere(routers, new["key"], 200)
    assert (await one.done("PATCH", "/clients/alice", {"group": None}))["group"] is None
    await one.done("DELETE", "/groups/acme/ml")
    await one.done("DELETE", "/clients/alice")
    await everywhere(routers, new["key"], 401)


async def test_a_key_that_expires(routers: tuple[Router, Router]) -> None:
    one, _ = routers
    await one.done("POST", "/clients", {"name": "alice"})
    key = await one.done("POST", "/keys", {"client": "alice", "expires_in_s": 2})
    await everywhere(routers, key["key"], 401)
    assert (await one.done("GET", f"/keys/{key['id']}"))["state"] == "expired"


async def test_without_an_admin_key_all_is_401(routers: tuple[Router, Router]) -> None:
    one, _ = routers
    await one.done("POST", "/clients", {"name": "alice"})
    key = (await one.done("POST", "/keys", {"client": "alice"}))["key"]
    told = set()
    for path in ("", "/clients", "/clients/alice", "/nothing", "/openapi.json", "/queue/policy"):
        for method in ("GET", "POST", "DELETE"):
            for wrong in (key, "sk-fixed", "sk-wrong"):
                answer = await one.admin(method, path, {"x": 1}, wrong)
                told.add((answer.status_code, answer.text))
            assert (await one.admin(method, path, None, None)).status_code == 401
    ((status, _),) = told
    assert status == 401
    assert await one.status(ADMIN) == 401


async def test_errors_name_the_field_and_the_mend(routers: tuple[Router, Router]) -> None:
    one, _ = routers
    await one.done("POST", "/groups", {"name": "acme"})
    await one.done("POST", "/clients", {"name": "alice", "group": "acme"})
    key = await one.done("POST", "/keys", {"client": "alice"})
    await one.done("POST", f"/keys/{key['id']}/revoke")
    config = "deploy that again"
    cases: list[tuple[str, str, Any, int, str | None, str]] = [
        ("POST", "/clients", {"name": "bob", "weight": 0}, 400, "weight", "greater than 0"),
        ("POST", "/clients", {"name": "bob", "weight": "inf"}, 400, "weight", "finite"),
        ("POST", "/clients", {"name": "a/b\n"}, 400, "name", "letters"),
        ("POST", "/clients", {"nam": "bob"}, 400, "name", "required"),
        ("POST", "/clients", [], 400, None, "body"),
        ("POST", "/clients", {"name": "bob", "wieght": 1}, 400, "wieght", "not permitted"),
        ("POST", "/clients", {"name": "bob", "group": "no"}, 404, "group", "no group 'no'"),
        ("POST", "/clients", {"name": "alice"}, 409, "name", "already"),
        ("POST", "/clients", {"name": "fixed"}, 409, None, config),
        ("PATCH", "/clients/fixed", {"weight": 1}, 409, None, config),
        ("DELETE", "/clients/fixed", None, 409, None, config),
        ("PATCH", "/clients/alice", {}, 400, None, "at least one"),
        ("PATCH", "/clients/bob", {"weight": 1}, 404, None, "no client 'bob'"),
        ("GET", "/clients/bob", None, 404, None, "no client 'bob'"),
        ("GET", "/clients?limit=0", None, 400, "limit", "greater than"),
        ("POST", "/groups", {"name": "x/y"}, 404, "name", "no group 'x'"),
        ("POST", "/groups", {"name": "x/y/z"}, 400, "name", "acme/ml"),
        ("POST", "/groups", {"name": "house"}, 409, None, config),
        ("DELETE", "/groups/house", None, 409, None, config),
        ("DELETE", "/groups/acme", None, 409, None, "move or remove"),
        ("PATCH", "/groups/no", {"weight": 1}, 404, None, "no group 'no'"),
        ("POST", "/keys", {"client": "bob"}, 404, "client", "no client 'bob'"),
        ("POST", "/keys", {"client": "fixed"}, 409, None, config),
        ("POST", "/keys", {"client": "a", "expires_in_s": 0}, 400, "expires_in_s", "greater"),
        ("GET", "/keys", None, 400, "client", "required"),
        ("GET", "/keys?client=bob", None, 404, "client", "no client 'bob'"),
        ("POST", f"/keys/{key['id']}/rotate", None, 409, None, "make a new one"),
        ("POST", f"/keys/{key_id(hash_key('sk-fixed'))}/revoke", None, 409, None, config),
        ("POST", "/keys/000000000000/revoke", None, 404, None, "no key"),
        ("POST", "/keys/../revoke", None, 404, None, "openapi"),
        ("PUT", "/queue/policy", {"policy": "random"}, 400, "policy", "vtc"),
        ("PUT", "/clients", {}, 405, None, "openapi"),
        ("GET", "/nothing", None, 404, None, "openapi"),
    ]
    for method, path, body, status, param, words in cases:
        answer = await one.refused(method, path, body)
        assert answer[:2] == (status, param), (method, path, answer)
        assert words in answer[2], (method, path, answer)
    broken = await one.admin("POST", "/clients", None, content=b"{")
    assert (broken.status_code, "not valid JSON" in broken.text) == (400, True)
    large = await one.admin("POST", "/clients", {"name": "x" * MAX_BODY_BYTES})
    assert large.status_code == 413


async def test_limits_are_set_replaced_and_taken_away(routers: tuple[Router, Router]) -> None:
    one, other = routers
    few = {"requests_per_minute": 60, "max_wait_s": 2.5}
    made = await one.done("POST", "/groups", {"name": "acme", "limits": few})
    assert made["limits"] == few
    await one.done("POST", "/clients", {"name": "alice", "group": "acme", "limits": few})
    key = (await one.done("POST", "/keys", {"client": "alice"}))["key"]
    authorization = f"Bearer {key}"

    async def hold(client: LevelLimits, group: LevelLimits) -> None:
        async def same() -> bool:
            found = [await each.app.clients.client(authorization) for each in routers]
            return all((f.limits, f.groups[0].limits) == (client, group) for f in found)

        await until(same)

    await hold(LevelLimits(60, max_wait_s=2.5), LevelLimits(60, max_wait_s=2.5))
    changed = await other.done("PATCH", "/clients/alice", {"limits": {"concurrency": 4}})
    assert (changed["limits"], changed["weight"]) == ({"concurrency": 4}, 1.0)
    await hold(LevelLimits(concurrency=4), LevelLimits(60, max_wait_s=2.5))
    assert (await one.done("PATCH", "/groups/acme", {"weight": 2}))["limits"] == few
    assert (await one.done("PATCH", "/groups/acme", {"limits": {}}))["limits"] == {}
    await hold(LevelLimits(concurrency=4), NO_LIMITS)
    for bad in ({"requests_per_minute": 0}, {"requests": 1}, {"concurrency": 1.5}):
        status, field, _ = await one.refused("PATCH", "/clients/alice", {"limits": bad})
        assert (status, field) == (400, f"limits.{next(iter(bad))}")


async def test_lists_show_the_configuration_too_and_come_in_pages(
    routers: tuple[Router, Router],
) -> None:
    one, other = routers
    for name in ("alice", "bob", "gina"):
        await one.done("POST", "/clients", {"name": name})
    await one.done("POST", "/groups", {"name": "house/kitchen"})  # within one of the configuration
    await one.done("POST", "/clients", {"name": "cook", "group": "house/kitchen"})
    await one.done("POST", "/clients", {"name": "zoe", "group": "house"})
    first = await other.done("GET", "/clients?limit=4")
    assert [client["name"] for client in first["clients"]] == ["alice", "bob", "cook", "fixed"]
    assert first["clients"][3] == {
        "name": "fixed",
        "weight": 2.0,
        "group": "house",
        "priority_class": None,
        "enabled": True,
        "limits": {},
        "created_at": None,
        "source": "configuration",
    }
    rest = await other.done("GET", f"/clients?limit=4&after={first['next']}")
    assert ([client["name"] for client in rest["clients"]], rest["next"]) == (["gina", "zoe"], None)
    found = await other.done("GET", "/clients?search=I")
    assert [client["name"] for client in found["clients"]] == ["alice", "fixed", "gina"]
    found = await other.done("GET", "/clients?group=house")
    assert [client["name"] for client in found["clients"]] == ["fixed", "zoe"]
    groups = await other.done("GET", "/groups")
    assert [group["name"] for group in groups["groups"]] == ["house", "house/kitchen"]
    assert (await one.done("GET", "/groups/house"))["source"] == "configuration"
    assert (await one.done("GET", "/clients/fixed"))["source"] == "configuration"
    (key,) = (await one.done("GET", "/keys?client=fixed"))["keys"]
    assert (key["id"], key["source"]) == (key_id(hash_key("sk-fixed")), "configuration")


async def test_all_changes_are_told_and_no_key(
    routers: tuple[Router, Router], caplog: pytest.LogCaptureFixture
) -> None:
    one, other = routers
    with caplog.at_level(logging.INFO, "fairlane.audit"):
        await one.done("POST", "/clients", {"name": "alice"})
        key = await one.done("POST", "/keys", {"client": "alice"})
        await other.done("PUT", "/queue/policy", {"policy": "fcfs"})
        await one.refused("POST", "/clients", {"name": "alice"})
    told = await other.done("GET", "/audit?limit=2")
    older = await other.done("GET", f"/audit?before={told['next']}")
    events = [*told["events"], *older["events"]]
    assert [(event["what"], event["subject"], event["key"]) for event in events] == [
        ("queue.policy", "policy", None),
        ("key.create", "client:alice", key["id"]),
        ("client.create", "client:alice", None),
    ]
    assert older["next"] is None
    assert {(event["by"], event["origin"]) for event in events} == {
        (key_id(hash_key(ADMIN)), "127.0.0.1")
    }
    assert events[2]["detail"] == {"weight": 1.0, "group": "", "enabled": True}
    lines = [json.loads(record.getMessage()) for record in caplog.records]
    assert [line["audit"] for line in lines] == ["create_client", "create_key", "note"]
    assert {line["by"] for line in lines} == {key_id(hash_key(ADMIN))}
    assert key["key"] not in json.dumps(events) + caplog.text


async def test_the_queue_s_clients_and_policy(routers: tuple[Router, Router]) -> None:
    one, other = routers
    await one.done("POST", "/clients", {"name": "alice", "weight": 4})
    groups = (Group("acme", 2.0), Group("acme/ml"))
    turn = one.turns.submit(Client("alice", 4.0, groups), 10)

    async def grouped() -> bool:
        rows = (await other.done("GET", "/queue/groups"))["tiny"]
        found = [(row["group"], row["weight"], row["waiting"]) for row in rows]
        return found == [("acme", 2.0, 1), ("acme/ml", 1.0, 1)]

    await until(grouped)
    one.turns.leave(turn)

    async def heard_of() -> bool:
        rows = (await other.done("GET", "/queue/clients"))["clients"]
        return {(row["client"], row["weight"]) for row in rows} >= {("fixed", 2.0)} and all(
            row["service"] == 0 for row in rows
        )

    await until(heard_of)
    of_tiny = await other.done("GET", "/queue/clients?model=tiny")
    assert of_tiny == await other.done("GET", "/queue/clients")
    status, field, _ = await other.refused("GET", "/queue/clients?model=none")
    assert (status, field) == (404, "model")
    await one.done("PUT", "/queue/policy", {"policy": "lcf"})

    async def agreed() -> bool:
        return await other.done("GET", "/queue/policy") == {"tiny": "lcf"}

    await until(agreed)


async def test_the_description_is_whole(routers: tuple[Router, Router]) -> None:
    description = await routers[0].done("GET", "/openapi.json")
    assert set(description["paths"]) == {
        "/admin/clients",
        "/admin/clients/{name}",
        "/admin/explain/{request_id}",
        "/admin/requests",
        "/admin/groups",
        "/admin/groups/{name}",
        "/admin/keys",
        "/admin/keys/{key}",
        "/admin/keys/{key}/rotate",
        "/admin/keys/{key}/revoke",
        "/admin/live",
        "/admin/live/clients",
        "/admin/live/events",
        "/admin/live/history",
        "/admin/live/what-if",
        "/admin/queue/classes",
        "/admin/queue/clients",
        "/admin/queue/groups",
        "/admin/queue/policy",
        "/admin/usage",
        "/admin/audit",
    }
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], (method, path)
            assert operation["security"] == [{"HTTPBearer": []}]


async def test_while_the_store_is_away_it_is_503_with_retry_after(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        source = StoreSettings(server.url, connect_timeout_s=0.5, call_timeout_s=0.5)
        async with router(source) as one:
            await one.done("POST", "/clients", {"name": "alice"})
            server.kill()
            for method, path, body in (
                ("GET", "/clients", None),
                ("POST", "/clients", {"name": "bob"}),
                ("GET", "/queue/clients", None),
                ("PUT", "/queue/policy", {"policy": "fcfs"}),
            ):
                answer = await one.admin(method, path, body)
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            assert (await one.done("GET", "/clients/fixed"))["weight"] == 2
            assert await one.status("sk-fixed") == 200
            assert await one.status("sk-other") == 503


async def test_routers_of_a_machine_share_the_admin_port(server_url: str) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/admin/queue/policy"
    headers = {"Authorization": f"Bearer {ADMIN}"}
    async with router(server_url) as one, httpx.AsyncClient(headers=headers) as http:
        # By a bound method, as the router does it.
        ports = [AdminPort(one.guard.__call__, "127.0.0.1", port) for _ in range(2)]
        assert {each.port for each in ports} == {port}
        assert (await eventually_answers(http, url)).status_code == 200
        assert (await http.get(url, headers={"Authorization": "Bearer no"})).status_code == 401
        await ports[0].stop()
        with pytest.raises(RuntimeError, match="not served any more"):
            ports[0].check()
        ports[1].check()
        async with httpx.AsyncClient(headers=headers) as fresh:
            assert (await fresh.get(url)).status_code == 200
        await ports[1].stop()


async def eventually_answers(http: httpx.AsyncClient, url: str) -> httpx.Response:
    async with asyncio.timeout(20):
        while True:
            try:
                return await http.get(url)
            except httpx.ConnectError:
                await asyncio.sleep(0.02)


async def test_clients_are_put_into_priority_classes(routers: tuple[Router, Router]) -> None:
    one, other = routers
    made = await one.done("POST", "/clients", {"name": "alice", "priority_class": "batch"})
    assert made["priority_class"] == "batch"
    key = (await one.done("POST", "/keys", {"client": "alice"}))["key"]

    async def told(client: Client) -> None:
        async def so() -> bool:
            return await other.clients.client(f"Bearer {key}") == client

        await until(so)

    await told(Client("alice", priority_class="batch"))
    changed = await one.done("PATCH", "/clients/alice", {"weight": 2.0})
    assert changed["priority_class"] == "batch"
    await told(Client("alice", 2.0, priority_class="batch"))
    changed = await one.done("PATCH", "/clients/alice", {"priority_class": None})
    assert (changed["priority_class"], changed["weight"]) == (None, 2.0)
    await told(Client("alice", 2.0))
    status, field, why = await one.refused("PATCH", "/clients/alice", {"priority_class": "night"})
    assert (status, field) == (400, "priority_class")
    assert "interactive, batch" in why
