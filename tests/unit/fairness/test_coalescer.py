"""The coalescer and the breaker together: nothing is lost, and nobody hammers a dead store."""

from __future__ import annotations

import asyncio
import itertools
import time

from fairness.store.breaker import BreakerOpenError
from fairness.store.coalescer import Coalescer
from fairness.store.contract import Call, Reply, StoreUnavailableError


async def test_it_comes_back_when_the_breaker_says_and_sends_the_same_call() -> None:
    failures: list[StoreUnavailableError] = [
        StoreUnavailableError("gone"),
        BreakerOpenError(0.15),
        BreakerOpenError(0.02),
    ]
    sent: list[tuple[float, Call]] = []
    done = asyncio.Event()

    async def execute(call: Call) -> Reply:
        sent.append((time.monotonic(), call))
        if failures:
            raise failures.pop(0)
        return Reply()

    coalescer = Coalescer(execute, lambda _: done.set())
    coalescer.pending.cancel("r1")
    coalescer.kick()
    task = asyncio.create_task(coalescer.run())
    async with asyncio.timeout(2):
        await done.wait()
    task.cancel()

    pauses = [after[0] - before[0] for before, after in itertools.pairwise(sent)]
    assert pauses[0] > 0.02  # its own, jittered
    assert pauses[1] >= 0.15  # the breaker's
    assert pauses[2] >= 0.02
    assert all(call is sent[0][1] for _, call in sent)
