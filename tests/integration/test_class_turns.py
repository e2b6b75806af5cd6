"""Priority classes from the router to the replica: real routers, real store, a played engine."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from fairness.classes import Classes, ServiceClass
from router.admin.classes import views
from router.clients import Client
from tests.integration.world import PROMPT, SETTINGS, World, world

pytestmark = pytest.mark.integration

FLOOR = 0.2
CLASSES = Classes((ServiceClass("interactive"), ServiceClass("batch", FLOOR)))
CLIENTS = {
    "chat": Client("chat", priority_class="interactive"),
    "nightly": Client("nightly", priority_class="batch"),
}
OUTPUT = 10
EACH = PROMPT + 2 * OUTPUT  # service of a request
MANY = 150  # requests


async def shares(pool: World) -> dict[str, int]:
    """Both flood until they have had many requests together; how many each had."""
    pool.told.clear()
    pool.enough = False
    floods = [
        asyncio.create_task(pool.flood(client, 300, streams=8, output=OUTPUT)) for client in CLIENTS
    ]
    counts = dict.fromkeys(CLIENTS, 0)
    async with asyncio.timeout(240):
        while sum(counts.values()) < MANY:
            await asyncio.sleep(0.02)
            counts = {
                client: used.output // OUTPUT for client, used in pool.told.items() if used.output
            }
    pool.enough = True
    for flood in floods:
        flood.cancel()
    await asyncio.gather(*floods, return_exceptions=True)
    assert pool.errors == []
    return dict.fromkeys(CLIENTS, 0) | counts


async def test_the_lower_class_gets_its_floor_while_the_higher_floods(server_url: str) -> None:
    settings = replace(SETTINGS, classes=CLASSES)
    async with world(server_url, replicas=1, slots=2, settings=settings) as pool:
        pool.clients = CLIENTS
        counts = await shares(pool)
        states = {state.client: state for state in await pool.queue.clients()}
        told = views(CLASSES, await pool.queue.groups())
    batch = counts["nightly"] / sum(counts.values())
    assert FLOOR - 0.06 < batch < FLOOR + 0.06  # a lease or two, of so many
    assert {state.group for state in states.values()} == {"class:interactive/", "class:batch/"}
    assert [(view.name, view.floor) for view in told] == [("interactive", 0.0), ("batch", FLOOR)]
    assert told[0].owed == 0
    assert abs(told[1].owed) <= 6 * EACH  # no more than what runs


async def test_without_a_floor_a_class_starves_and_alone_it_has_all(server_url: str) -> None:
    strict = Classes((ServiceClass("interactive"), ServiceClass("batch", 0.0)))
    settings = replace(SETTINGS, classes=strict)
    async with world(server_url, replicas=1, slots=2, settings=settings) as pool:
        pool.clients = CLIENTS
        counts = await shares(pool)
        assert counts["nightly"] <= 12  # those that found room before the others came
        await pool.request(0, "nightly", OUTPUT)
        assert pool.told["nightly"].output == OUTPUT * (counts["nightly"] + 1)


async def test_without_the_store_each_router_keeps_the_floors(server_url: str) -> None:
    settings = replace(SETTINGS, classes=CLASSES)
    async with world(server_url, replicas=1, slots=2, settings=settings) as pool:
        pool.clients = CLIENTS
        pool.network.cut = True
        async with asyncio.timeout(30):
            while not all(turns.degraded for turns in pool.turns):
                await asyncio.sleep(0.05)
        counts = await shares(pool)
        assert all(turns.degraded for turns in pool.turns)
        pool.network.cut = False
        await pool.settled(60)
        charged = await pool.charged()
    batch = counts["nightly"] / sum(counts.values())
    assert FLOOR - 0.1 < batch < FLOOR + 0.1  # of each of two routers
    assert charged["nightly"].output > 0
