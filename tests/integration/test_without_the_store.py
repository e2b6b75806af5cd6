"""What limits and prices are worth while the store is away (docs/operations.md has the table);
floors of classes: test_class_turns.py."""

from __future__ import annotations

import asyncio

import pytest

from fairness.grant_token import GrantToken
from fairness.limits import Limits
from router.clients import Client
from router.errors import ApiError
from tests.integration.world import World, world

pytestmark = pytest.mark.integration

PRICE = 2.5


async def without_store(pool: World) -> None:
    """Cut it off and wait until every router does without."""
    pool.network.cut = True
    async with asyncio.timeout(30):
        while not all(turns.degraded for turns in pool.turns):
            await asyncio.sleep(0.05)


async def test_each_router_keeps_to_the_limits_by_itself(server_url: str) -> None:
    async with world(server_url, routers=2, replicas=1) as pool:
        pool.clients = {"alice": Client("alice", limits=Limits(requests_per_minute=2))}
        await without_store(pool)
        for router in range(2):
            for _ in range(2):
                await pool.request(router, "alice", 3)
            assert pool.errors == []
            await pool.request(router, "alice", 3)
            (refused,) = pool.errors
            assert isinstance(refused, ApiError)
            assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
            pool.errors.clear()
        pool.network.cut = False
        await pool.settled(60)
        assert pool.told["alice"].output == 2 * 2 * 3
        assert (await pool.charged())["alice"] == pool.told["alice"]


async def test_a_price_holds_while_the_store_is_away_and_afterwards(server_url: str) -> None:
    async with world(server_url, routers=1, replicas=1) as alone:
        (turns,) = alone.turns
        await without_store(alone)
        turn = turns.submit(Client("alice"), 40, price=PRICE)
        grant = await turn.grant
        assert grant.counter == PRICE * 10  # of the router's own queue
        token = GrantToken(
            grant.lease, "alice", grant.replica, 0, counter=grant.counter, price=turn.price
        )
        used = await alone.replicas[grant.replica].serve(token, 5)
        turns.answered(turn)
        turns.leave(turn)
        alone.network.cut = False
        async with asyncio.timeout(30):
            while not (states := await alone.queue.clients()) or states[0].running:
                await asyncio.sleep(0.05)
        await alone.settled()
        (alice,) = await alone.queue.clients()
    assert (alice.input_tokens, alice.output_tokens) == (used.input, used.output)
    assert alice.service == PRICE * (used.input + 2 * used.output)
