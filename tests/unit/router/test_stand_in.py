"""The queue of one router while the store is away, with replicas that answer badly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from fairness.limits import Limits, Terms
from fairness.store.contract import Call, Grant, QueueSettings, Reply, Sender
from fairness.store.stand_in import Answer, Question
from router.stand_in import StandIn

ROUTER = Sender("router", "router-1")
ROOM = {"room": 1, "longest": 100, "leases": {}}


def stand_in(
    ask: Callable[[str, str, Question], Awaitable[Answer]], granted: list[Grant], ttl_ms: int = 300
) -> StandIn:
    def on_reply(reply: Reply) -> None:
        granted.extend(reply.grants)

    return StandIn(
        ROUTER,
        QueueSettings(sender_ttl_ms=ttl_ms),
        policy="vtc",
        replicas={"replica-1": "http://replica-1"},
        ask=ask,
        on_reply=on_reply,
        heard=lambda replica: None,
    )


async def one_request(queue: StandIn, granted: list[Grant]) -> None:
    call = Call()
    call.submit("r1", "alice", 1, 40)
    queue.tell(call)
    async with asyncio.timeout(5):
        while not granted:
            await asyncio.sleep(0.01)
    queue.check()
    queue.stop()
    assert [grant.lease for grant in granted] == ["r1.1"]


async def test_who_waits_is_not_forgotten_while_replicas_are_slow_to_answer() -> None:
    """Longer than after which a silent router counts as dead."""
    granted: list[Grant] = []

    async def slow(replica: str, url: str, question: Question) -> Answer:
        await asyncio.sleep(0.4)
        return Answer.from_json(ROOM)

    await one_request(stand_in(slow, granted), granted)


@pytest.mark.parametrize(
    "nonsense", [{}, [], {"room": None, "longest": 1, "leases": {}}, {"room": 1, "leases": 3}]
)
async def test_an_answer_without_sense_is_asked_for_again(nonsense: object) -> None:
    granted: list[Grant] = []
    answers = [nonsense, ROOM]

    async def ask(replica: str, url: str, question: Question) -> Answer:
        return Answer.from_json(answers.pop(0) if len(answers) > 1 else ROOM)

    await one_request(stand_in(ask, granted), granted)


async def test_an_end_of_the_asking_is_noticed() -> None:
    async def broken(replica: str, url: str, question: Question) -> Answer:
        raise ZeroDivisionError

    queue = stand_in(broken, [])
    await asyncio.sleep(0.05)
    with pytest.raises(RuntimeError, match="stand-in"):
        queue.check()
    queue.stop()


async def test_each_router_keeps_limits_by_itself() -> None:
    replies: list[Reply] = []

    async def never(replica: str, url: str, question: Question) -> Answer:
        raise TimeoutError

    queue = stand_in(never, [])
    queue._on_reply = replies.append
    for name, admitted in (("r1", False), ("r2", False), ("r3", True)):
        call = Call()
        terms = Terms((Limits(requests_per_minute=1),), admitted=admitted)
        call.submit(name, "alice", 1, 40, terms=terms)
        queue.tell(call)
    queue.stop()
    assert [list(reply.refused) for reply in replies] == [[], ["r2"], []]
