"""What a client with limits is answered: headers that tell the truth, and a 429 that says why."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from openai import AsyncOpenAI, RateLimitError

from fairness.limits import NO_LIMITS, Limits
from fairness.store.contract import Call, Usage
from router.clients import Client, Clients, Group, hash_key
from tests.integration.test_router import Setup, fine, hangs, replica, setup
from tests.integration.trunk_replica import Request

pytestmark = pytest.mark.integration
__all__ = ["setup"]


def limited(
    setup: Setup, client: Limits = NO_LIMITS, team: Limits = NO_LIMITS, names: Iterable[str] = ()
) -> None:
    """alice, and others with her limits, of the team acme/ml, have these from now on."""
    groups = (Group("acme"), Group("acme/ml", limits=team))
    keys = [("alice", "sk-1"), *((name, f"sk-{name}") for name in names)]
    setup.app.clients = Clients(
        [(hash_key(key), Client(name, 1.0, groups, client)) for name, key in keys]
    )


def rates(answer: Any) -> dict[str, str]:
    return {
        name.removeprefix("x-ratelimit-"): value
        for name, value in answer.headers.items()
        if name.startswith("x-ratelimit-")
    }


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_without_limits_there_are_no_headers(setup: Setup) -> None:
    async with replica(setup, "replica-1", fine, 1):
        answer = await setup.ask()
    assert (answer.status_code, rates(answer)) == (200, {})


async def test_headers_tell_of_the_tightest_level(setup: Setup) -> None:
    hour = 60 * 60 * 10  # requests a minute: one a millisecond or so is not seen to come back
    limited(setup, Limits(hour * 2, 6_000_000), Limits(requests_per_minute=3))
    async with replica(setup, "replica-1", fine, 3):
        answer = await setup.ask()
    found = rates(answer)
    assert (found["limit-requests"], found["remaining-requests"]) == ("3", "2")
    assert found["reset-requests"] == "20s"
    # {"model":"tiny","messages":[]}: 31 bytes, so 8 tokens at the first guess.
    assert (found["limit-tokens"], found["remaining-tokens"]) == ("6000000", "5999992")
    assert found["reset-tokens"] == "1ms"


async def test_beyond_the_limit_it_is_429_that_says_whose_and_until_when(setup: Setup) -> None:
    limited(setup, team=Limits(requests_per_minute=2, tokens_per_minute=1_000), names=["bob"])
    async with replica(setup, "replica-1", fine, 9) as one:
        assert [(await setup.ask()).status_code for _ in range(2)] == [200, 200]
        answer = await setup.ask(headers={"Authorization": "Bearer sk-bob"})
        sdk = AsyncOpenAI(
            base_url="http://router/v1", api_key="sk-1", http_client=setup.http, max_retries=0
        )
        with pytest.raises(RateLimitError, match="team 'acme/ml'"):
            await sdk.chat.completions.create(model="tiny", messages=[])
        assert len(one.tokens) == 2
    assert answer.status_code == 429
    error = answer.json()["error"]
    assert 0 < error.pop("retry_after_ms") <= 30_000
    assert error.pop("message").startswith(
        "the team 'acme/ml' has reached its limit of 2 requests a minute for this model (0 left)"
    )
    assert error == {
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limit_exceeded",
        "level": "team",
        "name": "acme/ml",
        "limit": "requests_per_minute",
        "limit_value": 2,
        "remaining": 0,
    }
    assert 1 <= int(answer.headers["retry-after"]) <= 30
    assert rates(answer)["remaining-requests"] == "0"
    assert int(rates(answer)["remaining-tokens"]) > 900
    assert answer.headers["x-fairlane-request-id"]
    assert await setup.alice() == (0, 0)
    assert not setup.turns._turns
    assert not setup.turns._in_store


async def test_one_after_the_other_is_one_in_flight(setup: Setup) -> None:
    """Though its replica settles each only later."""
    limited(setup, Limits(concurrency=1))
    settled = asyncio.Event()

    async def lingers(request: Request) -> None:
        await fine(request)
        await settled.wait()

    async with replica(setup, "replica-1", lingers, 9):
        assert [(await setup.ask()).status_code for _ in range(5)] == [200] * 5
        settled.set()


async def test_who_goes_away_makes_room(setup: Setup) -> None:
    limited(setup, Limits(concurrency=2))
    async with replica(setup, "replica-1", hangs, 1) as one:
        asked = [asyncio.create_task(setup.ask()) for _ in range(2)]
        await until(lambda: len(one.tokens) == 1)
        answer = await setup.ask()
        assert (answer.status_code, answer.json()["error"]["limit"]) == (429, "concurrency")
        assert rates(answer) == {}
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        one._handler = fine
        await one.offer(9)
        async with asyncio.timeout(10):
            while (await setup.ask()).status_code != 200:
                await asyncio.sleep(0.02)


async def test_a_client_may_be_less_patient_than_the_router(setup: Setup) -> None:
    limited(setup, team=Limits(max_wait_s=0.3))
    async with replica(setup, "replica-1", fine, 0) as one:
        await one.offer(1)
        await setup.seen(replicas=1)
        assert (await setup.ask()).status_code == 200
        answer = await setup.ask()
    assert (answer.status_code, "no turn within 0.3 s" in answer.text) == (503, True)


async def test_what_was_used_counts_not_what_was_reserved(setup: Setup) -> None:
    limited(setup, Limits(tokens_per_minute=1_000))

    async def fails(request: Request) -> None:
        """As an engine that has used much by the time it answers."""
        call = Call()
        assert request.lease is not None
        call.settle(request.lease.name, Usage(100, 0, 880))
        await setup.turns._queue.execute(one.sender, call)
        await fine(request)

    async with replica(setup, "replica-1", fails, 9) as one:
        first = await setup.ask()
        second = await setup.ask()
    assert int(rates(first)["remaining-tokens"]) == 1_000 - 8
    # The bucket has 20 left and what was refilled; the next one is estimated at 31 + 880.
    assert second.status_code == 429
    assert int(rates(second)["remaining-tokens"]) < 500


async def test_a_store_that_forgets_refuses_nobody_who_waits(setup: Setup) -> None:
    limited(setup, Limits(requests_per_minute=3, concurrency=3))
    async with replica(setup, "replica-1", hangs, 1) as one:
        asked = [asyncio.create_task(setup.ask()) for _ in range(3)]
        await until(lambda: len(one.tokens) == 1)
        await until(lambda: all(turn.admitted for turn in setup.turns._turns.values()))
        await setup.redis.flushall()
        await asyncio.sleep(1.5)  # the next heartbeat is told of the loss
        one._handler = fine
        await one.offer(9)
        answers = await asyncio.gather(*asked[1:])
        assert [answer.status_code for answer in answers] == [200, 200]
        asked[0].cancel()
        await asyncio.gather(asked[0], return_exceptions=True)
