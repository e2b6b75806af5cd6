"""/admin/explain: why requests waited, as any router tells it; real store, played replicas."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
import pytest_asyncio

from fairness.classes import Classes, ServiceClass
from fairness.cost import ServiceCost
from fairness.grant_token import GrantToken
from fairness.store.connection import connect
from fairness.store.contract import Call, QueueSettings, Sender, Usage
from fairness.store.locate import LocatedQueue
from fairness.store.redis_store import RedisQueue
from router.admin.app import admin_api
from router.admin.guard import AdminKeys
from router.app import Limits, RouterApp
from router.clients import Client, Clients, Group, hash_key
from router.explain.account import account
from router.explain.shelf import Shelf
from router.explain.stories import Stories
from router.explain.story import Story
from router.limits import QueueLimits
from router.trunks import Trunks
from router.turns import Turns
from router.watch import Watch
from tests.integration.directories import directory, patient
from tests.integration.trunk_replica import KEY, Handler, Request, TrunkReplica
from tests.integration.world import world

pytestmark = pytest.mark.integration

SETTINGS = QueueSettings(sender_ttl_ms=4000)
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "the secret prompt"}]}
ADMIN = {"Authorization": "Bearer sk-admin"}
NAMES = ("alice", "bob", "carol", "dave")
CLIENTS = [
    (
        hash_key(f"sk-{name}"),
        Client(
            name,
            1.0,
            (Group("acme"),) if name == "dave" else (),
            priority_class="batch" if name == "carol" else "",
        ),
    )
    for name in NAMES
]
CLASSES = Classes((ServiceClass("interactive"), ServiceClass("batch", 0.2)))


class Replica(TrunkReplica):
    """Takes what it is given; `settle` is the scenario's."""

    def __init__(self, url: str, name: str, handler: Handler, settings: QueueSettings) -> None:
        super().__init__(name, handler)
        self._redis = connect(url)
        self._queue = RedisQueue(self._redis, "tiny", settings)
        self._limit = self._version = 0

    async def say(self, call: Call) -> None:
        await self._queue.execute(Sender("replica", self.name), call)

    async def take(self, more: int) -> None:
        self._limit += more
        self._version += 1
        call = Call()
        call.offer(self.url, self._limit, 0, self._version, 4096)
        await self.say(call)

    async def settle(self, lease: str, usage: Usage) -> None:
        call = Call()
        call.settle(lease, usage)
        await self.say(call)

    async def stop(self) -> None:
        await super().stop()
        await self._redis.aclose()


class Router:
    """One router, as clients and admins see it."""

    def __init__(self, app: RouterApp, turns: Turns) -> None:
        self.turns = turns
        self.app = app
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app), base_url="http://router"
        )

    async def ask(self, client: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer sk-{client}"}
        return await self.http.post("/v1/chat/completions", json=CHAT, headers=headers)

    async def admin(self, path: str) -> Any:
        answer = await self.http.get(f"/admin/{path}", headers=ADMIN)
        return answer.json() if answer.is_success else answer.status_code

    async def explained(self, request: str, enough: Any = lambda told: True) -> dict[str, Any]:
        """Its explanation, once that is as `enough` wants it."""
        async with asyncio.timeout(30):
            while True:
                told = await self.admin(f"explain/{request}")
                if not isinstance(told, int) and enough(told):
                    return dict(told)
                await asyncio.sleep(0.05)

    async def waiting(self, count: int) -> list[str]:
        """Ids of the requests that wait, the oldest first, once there are so many."""
        async with asyncio.timeout(30):
            while True:
                rows = (await self.admin("requests"))["requests"]
                found = [row["request"] for row in rows if row["state"] == "waiting"]
                if len(found) >= count:
                    return found[::-1]
                await asyncio.sleep(0.05)


@asynccontextmanager
async def router(
    url: str, name: str, keep: int = 100, settings: QueueSettings = SETTINGS
) -> AsyncIterator[Router]:
    async with AsyncExitStack() as stack:
        found = await stack.enter_async_context(directory(url))
        queue = await LocatedQueue.open(patient(url), "tiny", settings)
        turns = Turns(name, queue, QueueLimits(requests_per_client=8), settings)
        turns.start()
        stack.push_async_callback(turns.stop)
        trunks = Trunks(lambda: KEY)
        stack.push_async_callback(trunks.close)
        stories = Stories(keep, 1000, time.monotonic)
        shelf = Shelf(patient(url), name, stories, ServiceCost())
        shelf.start()
        stack.push_async_callback(shelf.stop)
        guard = admin_api(AdminKeys([hash_key("sk-admin")]), found, {"tiny": turns}, shelf=shelf)
        watch = Watch(name, ServiceCost(), stories=stories)
        clients = Clients(CLIENTS, found)
        pools = {"tiny": turns}
        app = RouterApp(
            name, clients, pools, trunks, lambda: KEY, 15.0, Limits(), guard, watch=watch
        )
        made = Router(app, turns)
        yield made
        await made.http.aclose()


@asynccontextmanager
async def replica(
    url: str, name: str, handler: Handler, settings: QueueSettings = SETTINGS
) -> AsyncIterator[Replica]:
    made = Replica(url, name, handler, settings)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


@pytest_asyncio.fixture
async def routers(server_url: str) -> AsyncIterator[tuple[Router, Router]]:
    async with router(server_url, "router-1") as one, router(server_url, "router-2") as other:
        yield one, other


async def fine(request: Request) -> None:
    await request.answer(b'{"id":"answer"}')


async def known(routers: tuple[Router, Router]) -> None:
    """Every router knows of a replica."""
    async with asyncio.timeout(10):
        while not all(one.turns.replicas for one in routers):
            await asyncio.sleep(0.01)


async def served(one: Router, client: str, at: Replica, usage: Usage) -> str:
    """A request from its beginning to its settlement; its id."""
    await at.take(1)
    answer = await one.ask(client)
    assert answer.status_code == 200, answer.text
    await at.settle(at.leases.tokens[-1].lease, usage)
    return answer.headers["x-fairlane-request-id"]


async def test_a_request_served_at_once(server_url: str, routers: tuple[Router, Router]) -> None:
    one, other = routers
    async with replica(server_url, "replica-1", fine) as only:
        request = await served(one, "alice", only, Usage(30, 10, 5))
        told = await one.explained(request, lambda told: told["grants"][0]["end"])
    assert (told["client"], told["state"], told["status"]) == ("alice", "done", 200)
    assert told["standing"] is None
    (grant,) = told["grants"]
    assert grant["replica"] == "replica-1"
    assert grant["chosen"] == {"credits": 1, "next_replica": None, "next_credits": 0}
    size = told["body_bytes"]
    assert grant["charged"]["input_tokens"] == grant["charged"]["service"] == -(-size // 4)
    assert grant["end"]["how"] == "settled"
    assert grant["end"]["service"] == 20 + 2 * 5
    assert grant["end"]["correction"] == 30 - grant["charged"]["service"]
    account = " ".join(told["account"])
    assert "the only one with room (1 credit)" in account
    assert "30 prompt tokens (10 of them cached), 5 output tokens, service 30" in account
    assert "secret" not in str(told)
    assert "sk-" not in str(told)
    # The other router tells the same, and lists it.
    assert await other.explained(request, lambda told: told["grants"][0]["end"]) == told
    rows = (await other.admin("requests?client=alice"))["requests"]
    assert [(row["request"], row["output_tokens"]) for row in rows] == [(request, 5)]
    assert (await other.admin("requests?client=bob"))["requests"] == []


async def test_who_was_before_it_and_by_how_much(
    server_url: str, routers: tuple[Router, Router]
) -> None:
    one, other = routers
    async with replica(server_url, "replica-1", fine) as first:
        for _ in range(2):
            await served(one, "alice", first, Usage(100, 0, 50))
        asked = [asyncio.create_task(one.ask("carol"))]  # her counter: V, which alice has left
        await one.waiting(1)
        for client in ("alice", "alice", "dave", "dave"):  # of one kind one after the other
            asked.append(asyncio.create_task(other.ask(client)))
            await other.waiting(len(asked) - 1)
        alices, second_alices, _, second_daves = await other.waiting(4)
        last = await other.explained(second_alices, lambda told: told["standing"])
        assert last["standing"]["requests_before"] == 1
        (level,) = last["standing"]["levels"]
        ahead = level["ahead"]
        assert [each["name"] for each in level["first"]] == sorted(
            each["name"] for each in level["first"]
        )
        assert len(level["first"]) == ahead
        group, own = (await other.explained(second_daves))["standing"]["levels"]
        assert (group["name"], group["group"]) == ("acme", True)
        assert (own["name"], own["group"], own["ahead"]) == ("dave", False, 0)
        async with replica(server_url, "replica-2", fine) as second:
            await second.take(2)
            await first.take(5)
            assert {answer.status_code for answer in await asyncio.gather(*asked)} == {200}
            for at in (first, second):
                for token in at.leases.tokens:
                    await at.settle(token.lease, Usage(1, 0, 1))
            ended = await one.explained(
                alices, lambda told: told["grants"] and told["grants"][0]["end"]
            )
    assert ended["state"] == "done"
    assert ended["waited_ms"] > 0
    assert any("waited" in line for line in ended["account"])


async def test_by_how_much_others_are_before(
    server_url: str, routers: tuple[Router, Router]
) -> None:
    one, _ = routers
    async with replica(server_url, "replica-1", fine) as only:
        bob = asyncio.create_task(_later(one, only, "bob"))
        await bob
        asked = []
        for client in ("carol", "bob"):
            asked.append(asyncio.create_task(one.ask(client)))
            await one.waiting(len(asked))
        carols, bobs = await one.waiting(2)
        # Both came back to the same level; then bob's earlier request turns out to have cost 500.
        await only.settle(only.leases.tokens[-1].lease, Usage(100, 0, 200))
        asked.append(asyncio.create_task(one.ask("bob")))
        third = (await one.waiting(3))[-1]
        told = await one.explained(third, lambda told: told["standing"])
        (level,) = told["standing"]["levels"]
        assert (level["name"], level["ahead"]) == ("bob", 1)
        (before,) = level["first"]
        assert before["name"] == "carol"
        assert before["by"] == pytest.approx(level["counter"] - before["counter"])
        assert before["by"] > 0
        assert told["standing"]["requests_before"] == 1
        account = " ".join(told["account"])
        assert "1 was before bob" in account
        assert "carol by" in account
        assert "1 request of bob itself went before it" in account
        await only.take(3)
        await asyncio.gather(*asked)
        order = [token.lease.rpartition(".")[0] for token in only.leases.tokens[-3:]]
        assert order == [carols, bobs, third]


async def _later(one: Router, only: Replica, client: str) -> None:
    """A request that is answered, and not settled yet."""
    await only.take(1)
    assert (await one.ask(client)).status_code == 200


async def test_a_replica_that_fails_and_the_next(
    server_url: str, routers: tuple[Router, Router]
) -> None:
    one, _ = routers

    async def refuses(request: Request) -> None:
        await request.answer(b"", 403)

    async with replica(server_url, "replica-1", refuses) as bad:
        await bad.take(1)
        asked = asyncio.create_task(one.ask("alice"))
        async with asyncio.timeout(10):
            while not bad.leases.tokens:
                await asyncio.sleep(0.01)
        async with replica(server_url, "replica-2", fine) as good:
            await good.take(1)
            answer = await asked
            request = answer.headers["x-fairlane-request-id"]
            await good.settle(good.leases.tokens[-1].lease, Usage(3, 0, 1))
            told = await one.explained(request, lambda told: told["grants"][-1]["end"])
    first, second = told["grants"]
    assert "grant refused" in first["failed"]
    assert (second["replica"], second["failed"]) == ("replica-2", None)
    assert any(line.startswith("Granted again") for line in told["account"])


async def test_refused_cancelled_and_unknown(
    server_url: str, routers: tuple[Router, Router]
) -> None:
    one, other = routers
    refused = await one.ask("bob")
    assert refused.status_code == 503
    told = await other.explained(refused.headers["x-fairlane-request-id"])
    assert (told["state"], told["status"], told["waited_ms"]) == ("refused", 503, None)
    assert "no replica" in told["why"]
    async with replica(server_url, "replica-1", fine) as full:
        await served(one, "alice", full, Usage(1, 0, 1))
        asked = asyncio.create_task(one.ask("bob"))
        (request,) = await one.waiting(1)
        asked.cancel()
        told = await one.explained(request, lambda told: told["ended_ms"] is not None)
        assert (told["state"], told["grants"]) == ("cancelled", [])
    assert await one.admin("explain/nobody-1") == 404
    answer = await one.http.get("/admin/explain/nobody-1", headers=ADMIN)
    assert "x-fairlane-request-id" in answer.json()["error"]["message"]
    stranger = await one.http.get(
        f"/admin/explain/{request}", headers={"Authorization": "Bearer x"}
    )
    assert stranger.status_code == 401


async def test_what_is_kept_is_bounded_here_and_in_the_store(server_url: str) -> None:
    async with router(server_url, "router-1", keep=5) as one:
        requests = [(await one.ask("alice")).headers["x-fairlane-request-id"] for _ in range(4)]
        redis = connect(server_url)
        key = "fairlane:stories:1:{stories}:router-1"

        async def written(ids: list[str]) -> None:
            async with asyncio.timeout(20):
                while set(await redis.hkeys(key)) != set(ids):
                    await asyncio.sleep(0.05)

        await written(requests)
        requests += [(await one.ask("alice")).headers["x-fairlane-request-id"] for _ in range(2)]
        requests += [(await one.ask("bob")).headers["x-fairlane-request-id"]]
        await written(requests[2:])  # alice's oldest two are forgotten
        assert 0 < await redis.ttl(key) <= 3600
        await redis.aclose()


async def test_a_router_that_does_without_the_store_tells_its_own(server_url: str) -> None:
    async with world(server_url, routers=1, replicas=1) as alone:
        (turns,) = alone.turns
        alone.network.cut = True
        async with asyncio.timeout(30):
            while not turns.degraded:
                await asyncio.sleep(0.05)
        finished = asyncio.Event()
        alice = Client("alice")
        now = time.monotonic()
        story = Story(
            "router-0", "tiny", alice, "/v1/completions", 40, 0, "x", now, time.time(),
            lambda story: finished.set(), kept=True,
        )  # fmt: skip
        turn = turns.submit(alice, 40, story=story)
        grant = await turn.grant
        token = GrantToken(grant.lease, "alice", grant.replica, 0, counter=grant.counter)
        usage = await alone.replicas[grant.replica].serve(token, 3)
        turns.answered(turn)
        turns.leave(turn)
        story.end("done", status=200)
        turns.following.over(story)
        async with asyncio.timeout(20):
            await finished.wait()
        alone.network.cut = False
    facts = story.facts(ServiceCost())
    (told,) = facts["grants"]
    assert facts["degraded"]
    assert told["charged"]["service"] > 0
    assert (told["end"]["how"], told["end"]["output_tokens"]) == ("settled", usage.output)
    assert any("The store was away" in line for line in account(facts))


async def under_load(one: Router, at: Replica, clients: list[str]) -> list[dict[str, Any]]:
    """One of each asks, in that order, while nothing has room; then all are served. What is told of
    each."""
    asked = []
    for count, client in enumerate(clients, 1):
        asked.append(asyncio.create_task(one.ask(client)))
        requests = await one.waiting(count)
    for count in range(len(clients)):
        await at.take(1)
        async with asyncio.timeout(30):
            while sum(bool(token.lease) for token in at.leases.tokens) <= count + 1:
                await asyncio.sleep(0.01)
        await at.settle(at.leases.tokens[-1].lease, Usage(10, 0, 5))
    await asyncio.gather(*asked)
    return [
        await one.explained(request, lambda told: told["grants"] and told["grants"][-1]["end"])
        for request in requests
    ]


async def test_shadow_tells_what_vtc_would_have_done(server_url: str) -> None:
    async with router(server_url, "router-1") as one, replica(server_url, "replica-1", fine) as at:
        one.turns.set_policy("shadow", "a test")
        await served(one, "alice", at, Usage(900, 0, 100))
        of_alice, other_of_alice, of_bob = await under_load(one, at, ["alice", "alice", "bob"])
        shadow = (await one.admin("queue/clients"))["shadow"]
    # Served first come, first served: bob stood behind both. He was lifted to alice's counter, so
    # under VTC he stood behind her first only.
    assert of_bob["standing"]["requests_before"] == 2
    assert of_bob["standing"]["own_requests_before"] == 0
    (level,) = of_bob["standing"]["levels"]
    assert (level["name"], level["ahead"]) == ("bob", 1)
    assert other_of_alice["standing"]["own_requests_before"] == 1
    turns = [told["grants"][0]["turn_under_vtc"] for told in (of_alice, other_of_alice, of_bob)]
    assert turns == ["alice", "bob", "bob"]
    words = " ".join(of_bob["account"])
    assert "First come, first served: 2 requests had come before it" in words
    assert "What vtc would have gone by" in words
    assert "When it came, 1 was before bob" in words
    assert "It would have been its turn under vtc, too." in words
    assert "Under vtc it would have been the turn of bob." in other_of_alice["account"]
    assert shadow["out_of_turn"] == 1


async def test_the_class_of_a_request_and_what_it_is_owed(server_url: str) -> None:
    settings = replace(SETTINGS, classes=CLASSES)
    async with (
        router(server_url, "router-1", settings=settings) as one,
        replica(server_url, "replica-1", fine, settings) as at,
    ):
        await served(one, "alice", at, Usage(900, 0, 100))
        of_carol, of_dave = await under_load(one, at, ["carol", "dave"])
        rows = (await one.admin("queue/clients"))["clients"]
        classes = (await one.admin("queue/classes"))["tiny"]
    assert (of_carol["priority_class"], of_dave["priority_class"]) == ("batch", "interactive")
    assert of_dave["standing"]["priority_class"] == {
        "name": "interactive",
        "owed": 0,
        "ahead": [],
    }
    assert [level["name"] for level in of_dave["standing"]["levels"]] == ["acme", "dave"]
    assert of_carol["standing"]["priority_class"]["name"] == "batch"
    words = " ".join(of_dave["account"])
    assert "class interactive)" in words
    assert "priority class interactive; no class that waited was before it" in words
    # Dave came later and went first; that left something owed to carol's class, or paid back.
    assert of_dave["waited_ms"] < of_carol["waited_ms"]
    assert {row["client"]: row.get("priority_class") for row in rows}["carol"] == "batch"
    assert [(row["name"], row["floor"], row["running"]) for row in classes] == [
        ("interactive", 0.0, 0),
        ("batch", 0.2, 0),
    ]
