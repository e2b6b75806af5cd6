"""The dashboard and /me on a real store: who gets in, what is told, what ends a session."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
import redis

from deployments.embedded_store import EmbeddedValkey
from router.clients import Client, hash_key
from router.dashboard import ended
from router.dashboard.door import AdminDoor
from router.dashboard.sessions import COOKIE
from router.directory.records import Actor
from tests.browser.played import ACME, ADMIN, ML, POOL, SECRET, Flood, Played, played

pytestmark = pytest.mark.integration

FLOODS = (
    Flood(Client("alice"), 40),
    Flood(Client("bob", 2.0, (ACME, ML)), 40),
    Flood(Client("idle"), 0),
)
WHO = Actor("0123456789ab", "127.0.0.1")


@pytest_asyncio.fixture
async def stage(valkey_url: str) -> AsyncIterator[Played]:
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
    async with played(valkey_url, FLOODS, replicas=1, interval_s=0.2) as stage:
        yield stage


@pytest_asyncio.fixture
async def http(stage: Played) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        base_url=stage.url, timeout=60, limits=httpx.Limits(max_connections=None)
    ) as http:
        yield http


async def log_in(http: httpx.AsyncClient, key: str = ADMIN) -> dict[str, Any]:
    answer = await http.post("/dashboard/session", json={"key": key})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def seen(http: httpx.AsyncClient) -> dict[str, Any]:
    """An observation in which the floods are served."""
    async with asyncio.timeout(60):
        while True:
            told = (await http.get("/dashboard/admin/live")).json()[POOL]
            if told and told["rates"]["service_per_s"] and told["backlogged"] == 2:
                observation: dict[str, Any] = told
                return observation
            await asyncio.sleep(0.1)


async def test_pages_are_for_anyone_and_data_for_who_logged_in(http: httpx.AsyncClient) -> None:
    for path in ("/dashboard", "/dashboard/login", "/dashboard/static/app.css"):
        page = await http.get(path)
        assert page.status_code == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert page.headers["x-content-type-options"] == "nosniff"
        assert page.headers["referrer-policy"] == "no-referrer"
        again = await http.get(path, headers={"if-none-match": page.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    for path in ("/dashboard/static/../app.py", "/dashboard/static/manifest.json", "/dashboard/x"):
        assert (await http.get(path)).status_code == 404
    for path in ("/dashboard/session", "/dashboard/admin/live", "/dashboard/admin/clients"):
        refused = await http.get(path)
        assert refused.status_code == 401, path
        assert refused.headers["cache-control"] == "no-store"
    bearer = {"Authorization": f"Bearer {ADMIN}"}  # opens /admin, not this door
    assert (await http.get("/dashboard/admin/live", headers=bearer)).status_code == 401


async def test_a_session_from_its_beginning_to_its_end(http: httpx.AsyncClient) -> None:
    answer = await http.post("/dashboard/session", json={"key": ADMIN})
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Secure" not in cookie
    told = answer.json()
    assert (await http.get("/dashboard/session")).json() == told
    assert (await http.get("/dashboard/admin/clients")).status_code == 200
    assert (await http.get("/admin/clients")).status_code == 401  # no cookie opens the API itself
    assert (await http.delete("/dashboard/session")).status_code == 403
    value = http.cookies[COOKIE]
    gone = await http.delete("/dashboard/session", headers={"X-Fairlane-CSRF": told["csrf"]})
    assert "Max-Age=0" in gone.headers["set-cookie"]
    stolen = {"Cookie": f"{COOKIE}={value}"}
    assert (await http.get("/dashboard/session", headers=stolen)).status_code == 401
    audit = await http.get("/admin/audit", headers={"Authorization": f"Bearer {ADMIN}"})
    assert [event["what"] for event in audit.json()["events"]] == [
        "dashboard.logout",
        "dashboard.login",
    ]


async def test_behind_tls_the_cookie_is_secure(http: httpx.AsyncClient) -> None:
    https = {"X-Forwarded-Proto": "https"}
    answer = await http.post("/dashboard/session", json={"key": ADMIN}, headers=https)
    assert "Secure" in answer.headers["set-cookie"]


async def test_changes_need_the_token_and_say_who(stage: Played, http: httpx.AsyncClient) -> None:
    await stage.directory.store.create_client(WHO, "dora", 1.0, "", enabled=True, fixed=False)
    told = await log_in(http)
    change = "/dashboard/admin/clients/dora"
    for token in ({}, {"X-Fairlane-CSRF": "0" * 64}, {"X-Fairlane-CSRF": "é".encode()}):
        refused = await http.patch(change, json={"weight": 5}, headers=token)
        assert refused.status_code == 403
    token = {"X-Fairlane-CSRF": told["csrf"]}
    done = await http.patch(change, json={"weight": 5}, headers=token)
    assert done.json()["weight"] == 5
    event = (await http.get("/dashboard/admin/audit")).json()["events"][0]
    assert (event["what"], event["by"]) == ("client.change", hash_key(ADMIN)[:12])


async def test_wrong_keys_are_refused_and_soon_not_even_looked_at(http: httpx.AsyncClient) -> None:
    async def status(content: Any, **headers: str) -> int:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        told = {"content-type": "application/json"} | headers
        return (await http.post("/dashboard/session", content=data, headers=told)).status_code

    assert await status(b"{") == 400
    assert await status({"key": 5}) == 400
    assert await status({"key": "x" * 5000}) == 413
    assert await status({"key": ADMIN}, **{"content-type": "text/plain"}) == 415
    for _ in range(10):
        assert await status({"key": "sk-alice"}) == 403
    assert await status({"key": ADMIN}) == 429
    # Another origin, as the nearest proxy tells it, may try.
    assert await status({"key": ADMIN}, **{"x-forwarded-for": "10.0.0.1, 10.0.0.2"}) == 200


async def test_a_session_holds_on_another_router_until_its_key_is_taken_away(
    stage: Played, http: httpx.AsyncClient
) -> None:
    told = await log_in(http)
    stage.door.configure([hash_key("sk-other"), hash_key(ADMIN)])
    assert (await http.get("/dashboard/session")).json() == told
    other = AdminDoor(stage.directory, {}, {}, lambda: SECRET, 12)
    other.configure([hash_key(ADMIN)])
    transport = httpx.ASGITransport(app=other)
    cookie = f"{COOKIE}={http.cookies[COOKIE]}"
    async with httpx.AsyncClient(
        transport=transport, base_url="http://other", headers={"Cookie": cookie}
    ) as there:
        assert (await there.get("/dashboard/session")).json() == told
        await http.delete("/dashboard/session", headers={"X-Fairlane-CSRF": told["csrf"]})
        async with asyncio.timeout(10 * ended.FRESH_S):
            while (await there.get("/dashboard/session")).status_code != 401:
                await asyncio.sleep(0.1)
    await log_in(http)
    stage.door.configure([hash_key("sk-other")])
    assert (await http.get("/dashboard/session")).status_code == 401


async def test_without_a_dashboard_its_paths_are_not_there(valkey_url: str) -> None:
    async with (
        played(valkey_url, FLOODS, replicas=0, session_hours=None) as stage,
        httpx.AsyncClient(base_url=stage.url) as http,
    ):
        assert (await http.get("/dashboard")).status_code == 404
        assert (await http.post("/dashboard/session", json={"key": ADMIN})).status_code == 404


async def test_events_come_live_and_end_with_the_session(
    stage: Played, http: httpx.AsyncClient
) -> None:
    stage.flood(FLOODS)
    told = await log_in(http)
    events = 0
    url = f"/dashboard/admin/live/events?pool={POOL}"
    async with asyncio.timeout(60), http.stream("GET", url) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        async for line in stream.aiter_lines():
            if not line.startswith("data: "):
                continue
            assert json.loads(line.removeprefix("data: "))["pool"] == POOL
            events += 1
            if events == 3:
                assert len(stage.live.feed) == 1
                csrf = {"X-Fairlane-CSRF": told["csrf"]}
                await http.delete("/dashboard/session", headers=csrf)
    assert events >= 3  # and the stream has ended
    async with asyncio.timeout(20):
        while len(stage.live.feed):
            await asyncio.sleep(0.05)


async def test_a_hundred_open_pages_end_when_their_router_is_to_end(
    stage: Played, http: httpx.AsyncClient
) -> None:
    """Ray Serve waits for them before it tells a router to stop (`router.leaving`)."""
    stage.flood(FLOODS)
    await log_in(http)
    url = f"/dashboard/admin/live/events?pool={POOL}"

    async def frames() -> list[str]:
        async with http.stream("GET", url) as stream:
            return [line async for line in stream.aiter_lines() if line.startswith("data: ")]

    async with asyncio.timeout(120):
        pages = [asyncio.create_task(frames()) for _ in range(100)]
        while len(stage.live.feed) < 100:
            await asyncio.sleep(0.05)
        stage.live.feed.close()
        told = await asyncio.gather(*pages)
    assert len(told) == 100
    assert len(stage.live.feed) == 0
    assert (await http.get("/dashboard/session")).status_code == 200  # it was not that


async def test_what_a_page_opened_now_is_told(stage: Played, http: httpx.AsyncClient) -> None:
    stage.flood(FLOODS)
    await log_in(http)
    now = await seen(http)
    assert {row["client"] for row in now["clients"]} == {"alice", "bob"}
    history = (await http.get(f"/dashboard/admin/live/history?pool={POOL}&span=15m")).json()
    assert set(history["clients"]) == {"alice", "bob"}
    assert len(history["at_ms"]) == len(history["clients"]["bob"]["service_per_s"]) > 0
    query = "client=alice&client=nobody&client=idle"
    states = (await http.get(f"/dashboard/admin/live/clients?{query}")).json()[POOL]
    assert set(states) == {"alice"}
    assert states["alice"]["running"] > 0
    what = f"/dashboard/admin/live/what-if?pool={POOL}&weight=3"
    shares = {one["name"]: one for one in (await http.get(f"{what}&client=alice")).json()["shares"]}
    assert shares["alice"]["after_per_s"] > 1.2 * shares["alice"]["before_per_s"]
    assert shares["bob"]["after_per_s"] < shares["bob"]["before_per_s"]
    assert shares["acme"]["kind"] == "group"
    for wrong, status in (("", 400), ("&client=a&group=b", 400)):
        assert (await http.get(what + wrong)).status_code == status
    assert (await http.get("/dashboard/admin/live/history?pool=no")).status_code == 404


async def test_a_client_sees_itself_and_nothing_of_others(
    stage: Played, http: httpx.AsyncClient
) -> None:
    stage.flood(FLOODS)
    await log_in(http)
    await seen(http)
    http.cookies.clear()
    answer = await http.get("/me", headers={"Authorization": "Bearer sk-bob"})
    told = answer.json()
    assert (told["client"], told["weight"], told["group"]) == ("bob", 2.0, "acme/ml")
    mine = told["pools"][POOL]
    assert 0.3 < mine["share"] < 0.8
    assert mine["waiting"] > 0
    assert [(place["group"], place["of"]) for place in mine["ahead"]] == [
        ("acme/ml", 1),
        ("acme", 1),
        ("", 2),
    ]
    assert told["limits"]["waiting_requests"] == 2000
    assert "alice" not in answer.text
    async with asyncio.timeout(60):  # what ended a moment ago is told within half a minute
        while not told["usage"]:
            await asyncio.sleep(1)
            told = (await http.get("/me", headers={"Authorization": "Bearer sk-bob"})).json()
    assert told["usage"][0]["model"] == POOL
    idle = (await http.get("/me", headers={"Authorization": "Bearer sk-idle"})).json()
    assert idle["pools"][POOL]["share"] == 0


async def test_me_is_a_page_for_browsers_and_refuses_what_is_no_key(
    http: httpx.AsyncClient,
) -> None:
    page = await http.get("/me", headers={"Accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
    for path in ("/me/static/me.js", "/me/static/app.css"):
        assert (await http.get(path)).status_code == 200
    assert (await http.get("/me")).status_code == 401
    for key in ("sk-nobody", ADMIN):
        answer = await http.get("/me", headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
    assert (await http.get("/me/else")).status_code == 404
    for wrong in (await http.post("/me"), await http.patch("/dashboard/session")):
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, 405)
        assert "allow" in wrong.headers


async def test_while_the_store_is_away(tmp_path: Any) -> None:
    """Pages and sessions hold; data are refused, as the admin API refuses them."""
    with EmbeddedValkey(tmp_path) as server:
        async with (
            played(server.url, FLOODS, replicas=0, interval_s=0.2) as stage,
            httpx.AsyncClient(base_url=stage.url, timeout=60) as http,
        ):
            await log_in(http)
            server.stop()
            assert (await http.get("/dashboard")).status_code == 200
            assert (await http.get("/dashboard/session")).status_code == 200
            assert (await http.get("/dashboard/admin/clients")).status_code == 503
            key = {"Authorization": "Bearer sk-alice"}
            assert (await http.get("/me", headers=key)).status_code == 503
