"""Many requests, few round trips: one call in flight, the rest gather for the next.

At low load a verb leaves at once; at high load the round trip itself sets the batch. The batch is
capped, because a long script keeps every other sender waiting.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from fairness.store.breaker import BreakerOpenError
from fairness.store.contract import Argument, Call, Reply, StoreUnavailableError

MAX_VERBS = 128
RETRY_S = (0.05, 0.1, 0.2, 0.5, 1.0)


class Coalescer:
    """Sends a sender's verbs in order and hands every reply to `on_reply`.

    A call that fails is sent again, unchanged, until it succeeds (every verb may be repeated), so
    a verb once added is never lost while this process lives. One call every `heartbeat_s` is a
    heartbeat.
    """

    def __init__(
        self,
        execute: Callable[[Call], Awaitable[Reply]],
        on_reply: Callable[[Reply], None],
        *,
        heartbeat_s: float = 1.0,
    ) -> None:
        """execute: a `Session`'s."""
        self._execute = execute
        self._on_reply = on_reply
        self._heartbeat_s = heartbeat_s
        self._pending = Call()
        self._wake = asyncio.Event()

    @property
    def pending(self) -> Call:
        """The call being gathered: add verbs to it, then `kick`."""
        return self._pending

    def kick(self) -> None:
        """There is something to send."""
        self._wake.set()

    async def run(self) -> None:
        """Send until cancelled."""
        loop = asyncio.get_running_loop()
        next_beat = loop.time()
        while True:
            try:
                async with asyncio.timeout_at(next_beat):
                    await self._wake.wait()
            except TimeoutError:
                pass
            if loop.time() >= next_beat:
                self._pending.heartbeat()
                next_beat = loop.time() + self._heartbeat_s
            self._wake.clear()
            await self._deliver(self._take())

    def _take(self) -> Call:
        verbs: list[tuple[Argument, ...]] = self._pending.verbs
        self._pending = Call(verbs[MAX_VERBS:])
        if self._pending:
            self._wake.set()
        return Call(verbs[:MAX_VERBS])

    async def _deliver(self, call: Call) -> None:
        failures = 0
        while True:
            try:
                reply = await self._execute(call)
            except BreakerOpenError as error:
                await asyncio.sleep(error.retry_in_s)  # the breaker paces us, with its own jitter
            except StoreUnavailableError:
                pause_s = RETRY_S[min(failures, len(RETRY_S) - 1)]
                # A part of it at random: all routers lost the store at the same moment.
                await asyncio.sleep(pause_s * random.uniform(0.5, 1))
                failures += 1
            else:
                self._on_reply(reply)
                return
