"""GET /admin/usage of routers on a real store."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from dataclasses import astuple
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fairness.groups import Group
from fairness.store.connection import SCHEMA, connect
from fairness.store.contract import Call, Sender, Usage
from fairness.store.redis_store import USED, RedisQueue
from fairness.store.settings import StoreSettings
from fairness.store.usage import Used, day_of, today
from tests.integration.servers import Server
from tests.integration.test_admin import SETTINGS, Router, router

pytestmark = pytest.mark.integration

FEW = Used(2, 20, 5, 8, 31, 1500)
MANY = Used(30, 400, 0, 100, 600, 0)


class Past:
    """Writes what was used: on days before as the store keeps them, today as it happens."""

    def __init__(self, url: str) -> None:
        self.redis = connect(url)

    async def used(self, days_ago: int, client: str, used: Used) -> date:
        day = today() - timedelta(days=days_ago)
        record = USED.pack(day_of(day), *astuple(used))
        await self.redis.hset(f"{SCHEMA}:{{tiny}}:usage:{day_of(day)}", client, record)
        return day

    async def request(self, client: str, usage: Usage, *groups: Group) -> None:
        """One from its submission to its end, today."""
        queue = RedisQueue(self.redis, "tiny", SETTINGS)
        replica, asking = Sender("replica", "replica-1"), Sender("router", "router-past")
        call = Call()
        call.submit(client, client, 1, 40, groups=groups)
        call.reconcile(client)
        await queue.execute(asking, call)
        call = Call()
        call.offer("http://replica", 100, 0, 1, 4096)
        await queue.execute(replica, call)
        call = Call()
        call.settle(f"{client}.1", usage)
        await queue.execute(replica, call)


@pytest_asyncio.fixture
async def past(server_url: str) -> AsyncIterator[Past]:
    made = Past(server_url)
    yield made
    await made.redis.aclose()


@pytest_asyncio.fixture
async def one(server_url: str, past: Past) -> AsyncIterator[Router]:
    async with router(server_url) as made:
        yield made


def row(used: Used, **names: str | None) -> dict[str, Any]:
    return {
        **names,
        "requests": used.requests,
        "input_tokens": used.input,
        "cached_tokens": used.cached,
        "output_tokens": used.output,
        "service": used.service,
        "waiting_s": used.waited / 1000,
    }


async def test_by_client_model_and_day(one: Router, past: Past) -> None:
    long_ago = await past.used(40, "alice", FEW)
    yesterday = await past.used(1, "alice", FEW)
    await past.used(1, "bob", MANY)
    await past.request("alice", Usage(10, 4, 3))
    of_alice, of_bob = (
        row(used, client=c, model="tiny") for used, c in ((FEW, "alice"), (MANY, "bob"))
    )
    told = await one.done("GET", "/usage")
    assert told["to"] >= told["usage"][-1]["day"]
    assert told["next"] is None
    *before, now = told["usage"]
    assert before == [
        {"day": str(yesterday), **of_alice},
        {"day": str(yesterday), **of_bob},
    ]
    waited = Used(waited=1000 * now["waiting_s"])
    assert now == row(
        Used(1, 10, 4, 3, 12, waited.waited), day=now["day"], client="alice", model="tiny"
    )
    older = await one.done("GET", f"/usage?from={long_ago}&to={long_ago}")
    assert older["usage"] == [{"day": str(long_ago), **of_alice}]
    assert (older["from"], older["to"]) == (str(long_ago), str(long_ago))


async def test_sums(one: Router, past: Past) -> None:
    await past.used(2, "alice", FEW)
    await past.used(1, "alice", FEW)
    await past.used(1, "bob", MANY)
    twice = Used(4, 40, 10, 16, 62, 3000)
    for by, rows in (
        ("client", [row(twice, client="alice"), row(MANY, client="bob")]),
        ("model", [row(Used(34, 440, 10, 116, 662, 3000), model="tiny")]),
        ("", [row(Used(34, 440, 10, 116, 662, 3000))]),
    ):
        assert (await one.done("GET", f"/usage?by={by}"))["usage"] == rows
    only = await one.done("GET", "/usage?by=client&client=alice&client=nobody")
    assert only["usage"] == [row(twice, client="alice")]


async def test_by_group_the_directory_goes_first_and_the_queue_knows_who_is_gone(
    one: Router, past: Past
) -> None:
    await one.done("POST", "/groups", {"name": "acme"})
    await one.done("POST", "/groups", {"name": "acme/ml"})
    await one.done("POST", "/clients", {"name": "alice", "group": "acme/ml"})
    await one.done("POST", "/clients", {"name": "bob"})
    for client in ("alice", "bob", "fixed", "gone", "nobody"):
        await past.used(1, client, FEW)
    await past.request("bob", Usage(), Group("acme/"))  # before it was taken out
    await past.request("gone", Usage(), Group("acme/"), Group("acme/ml/"))
    day = f"to={today() - timedelta(days=1)}"
    two = Used(4, 40, 10, 16, 62, 3000)
    assert (await one.done("GET", f"/usage?by=group&{day}"))["usage"] == [
        row(two, group=None),  # bob, nobody
        row(two, group="acme/ml"),
        row(FEW, group="house"),
    ]
    assert (await one.done("GET", f"/usage?by=organisation,client&group=acme&{day}"))["usage"] == [
        row(FEW, organisation="acme", client="alice"),
        row(FEW, organisation="acme", client="gone"),
    ]
    told = await one.done("GET", f"/usage?by=client&group=house&{day}")
    assert told["usage"] == [row(FEW, client="fixed")]


@pytest.mark.parametrize("by", ["day,client,model", "client", "group"])
async def test_pages_make_the_whole(one: Router, past: Past, by: str) -> None:
    for days_ago in (1, 2, 3):
        for number in range(5):
            await past.used(days_ago, f"client-{number}, the \u201cn-th\u201d", FEW)
    whole = (await one.done("GET", f"/usage?by={by}"))["usage"]
    pages, after = [], ""
    while after is not None:
        page = await one.done("GET", f"/usage?by={by}&limit=2&after={after}")
        assert len(page["usage"]) <= 2
        pages += page["usage"]
        after = page["next"]
    assert pages == whole
    assert len(whole) == {"client": 5, "group": 1}.get(by, 15)


async def test_all_as_csv(one: Router, past: Past) -> None:
    name = 'a, "b"'
    day = await past.used(1, name, FEW)
    for number in range(1200):
        await past.used(2, f"c{number:04}", FEW)
    answer = await one.admin("GET", "/usage?format=csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    header, *lines = csv.reader(io.StringIO(answer.text))
    assert header == [
        *("day", "client", "model", "requests", "input_tokens"),
        *("cached_tokens", "output_tokens", "service", "waiting_s"),
    ]
    assert lines[-1] == [str(day), name, "tiny", "2", "20", "5", "8", "31.0", "1.5"]
    assert [line[1] for line in lines[:-1]] == [f"c{number:04}" for number in range(1200)]
    headers = {"Authorization": "Bearer sk-admin", "Accept": "text/csv"}
    asked = await one.http.get("/admin/usage?by=", headers=headers)
    assert asked.text.splitlines()[1].split(",")[0] == str(2 * 1201)


async def test_of_nothing(one: Router) -> None:
    assert (await one.done("GET", "/usage"))["usage"] == []
    assert (await one.admin("GET", "/usage?format=csv")).text.count("\n") == 1


async def test_errors_name_the_field(one: Router) -> None:
    cursor = (await one.done("GET", "/usage"))["next"]
    assert cursor is None
    for query, param, words in (
        ("from=2026-02-30", "from", "date"),
        ("from=2026-02-02&to=2026-02-01", "from", "after"),
        ("from=1970-01-01", "from", "3660"),
        ("by=day,mood", "by", "choose of"),
        ("after=nonsense", "after", "next"),
        ("after=bnVsbA==", "after", "next"),
        ("after=WyJhIl0=", "after", "same `by`"),
        ("after=WyJhIiwgImIiLCAiYyJd", "after", "next"),
        ("limit=0", "limit", "greater"),
        ("format=xml", "format", "csv"),
        ("form=csv", "form", "not permitted"),
    ):
        status, field, message = await one.refused("GET", f"/usage?{query}")
        assert (status, field) == (400, param), (query, message)
        assert words in message, query


async def test_while_the_store_is_away_it_is_503_also_for_a_csv(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        source = StoreSettings(server.url, connect_timeout_s=0.5, call_timeout_s=0.5)
        async with router(source) as one:
            await one.done("GET", "/usage")
            server.kill()
            for query in ("", "?format=csv"):
                assert (await one.admin("GET", f"/usage{query}")).status_code == 503
