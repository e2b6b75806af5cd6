"""The replica's side of the global queue: offers, charges and settlements out, counters in.

One loop does it all, so that what it tells one side is always consistent with what it heard from
the other:

1. `exchange` with the scheduler, between two engine steps: give it the counters last read, take
   what leases and clients have used by now.
2. If there is news, one call to the store: the window, the charges (at most every
   `charge_interval_s`), the settlements. The reply names the clients' global counters.

A client's counter in the batch is `base + charged`, where `charged` is what this engine has
charged it in all and `base = global counter - charged`, both taken at the same exchange: the
batch follows the global order, and what happens in between is never counted twice.

Nothing but heartbeats waits on this loop, and they do not wait for a long engine step. When the
store is away the engine goes on by its local counters, and charges, being cumulative, are simply
told later. Cost: while requests wait for the engine at most one exchange every `report_interval_s`,
else one every `charge_interval_s`; a round trip when there is something to say; none when idle but
a heartbeat a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fairness.grant_token import GrantToken
from fairness.store.contract import (
    Call,
    GlobalQueue,
    Reply,
    Sender,
    StoreUnavailableError,
    Usage,
)
from replicas.lease_book import Lease, LeaseBook

logger = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
ENGINE_SILENCE_S = 5.0  # how long a cut-off lease waits for the engine's last word
CALL_LIMIT = 256  # settlements a call; a long script keeps everyone else waiting

Exchange = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """report_interval_s: between two exchanges. charge_interval_s: between two charges."""

    report_interval_s: float = 0.01
    charge_interval_s: float = 0.1


class QueueLink:
    """Keeps one replica's leases, its engine's counters and the global queue in step."""

    def __init__(
        self,
        sender: Sender,
        url: str,
        book: LeaseBook,
        *,
        exchange: Exchange,
        queue: GlobalQueue,
        longest: int,
        settings: LinkSettings,
    ) -> None:
        self._sender = sender
        self._url = url
        self._book = book
        self._exchange = exchange
        self._queue = queue
        self._settings = settings
        self._longest = longest
        self._news = asyncio.Event()
        self._news.set()  # the first offer
        self._idle = asyncio.Event()
        self._policy: str | None = None  # to tell the engine
        self._ordered_by: str | None = None
        self._bases: dict[str, float] = {}
        self._charged: dict[str, float] = {}
        self._leaving: set[str] = set()
        self._cut_off: dict[str, tuple[Lease, float]] = {}
        self._said_limit = -1
        self._version = 0
        self._waited = False
        self.kv_usage = 0.0
        self.preemptions = 0

    def wake(self) -> None:
        """Something changed."""
        self._news.set()

    def open(self, token: GrantToken) -> Lease:
        """A granted request arrived. Raises DuplicateLeaseError."""
        lease = self._book.open(token)
        self.wake()
        return lease

    def close(self, lease: Lease) -> None:
        """Its HTTP exchange is over. Cut off, it waits for the engine's last word; not forever."""
        self._book.close(lease)
        if lease.final is None:
            deadline = asyncio.get_running_loop().time() + ENGINE_SILENCE_S
            self._cut_off[lease.name] = (lease, deadline)
        self.wake()

    def step_done(self) -> None:
        """The engine has done a step; that is news only while something waits for it."""
        if self._book.unstarted or self._cut_off:
            self.wake()

    async def run(self) -> None:
        """Exchange and report until cancelled."""
        loop = asyncio.get_running_loop()
        next_charge = next_beat = 0.0
        exchange: asyncio.Task[None] | None = None
        while True:
            wait = self._settings.charge_interval_s if self._book.busy else HEARTBEAT_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._news.wait()
            self._news.clear()
            now = loop.time()
            charging = self._book.busy and now >= next_charge
            if exchange is None and (charging or self._wants_exchange()):
                exchange = asyncio.create_task(self._exchange_with_engine())
            if exchange is not None:
                # A long step (a huge prefill, a first compilation) must not look like death.
                await asyncio.wait({exchange}, timeout=HEARTBEAT_S)
                if exchange.done():
                    exchange.result()
                    exchange = None
                else:
                    charging = False
            now = loop.time()
            self._give_up(now)
            call = Call()
            if now >= next_beat:
                call.heartbeat()
                next_beat = now + HEARTBEAT_S
            if charging:
                for lease, usage in self._book.take_charges():
                    call.charge(lease, usage)
                next_charge = now + self._settings.charge_interval_s
            settlements = self._book.settlements()[:CALL_LIMIT]
            for lease, usage in settlements:
                call.settle(lease, usage)
            if call or self._book.limit != self._said_limit:
                await self._report(call, settlements, charging)
            if self._book.draining and not self._book.busy:
                self._idle.set()
            await asyncio.sleep(self._settings.report_interval_s)

    def _wants_exchange(self) -> bool:
        return bool(
            self._book.unstarted or self._cut_off or self._bases or self._policy or self._leaving
        )

    async def drain(self) -> None:
        """Take no more grants; returns when every lease is settled (`run` must go on)."""
        self._book.draining = True
        self.wake()
        await self._idle.wait()

    async def _exchange_with_engine(self) -> None:
        update: dict[str, Any] = {}
        if self._bases:
            update["base"], self._bases = self._bases, {}
        if self._policy is not None:
            update["policy"], self._policy = self._policy, None
        leaving = {*self._leaving, *self._book.take_departed()}
        if leaving:
            update["forget"] = list(leaving)
        answer = await self._exchange(update)
        for client in leaving:
            self._charged.pop(client, None)
        self._leaving = leaving & answer["charged"].keys()  # still live there: ask again
        self._charged.update(answer["charged"])
        self.kv_usage = answer["kv_usage"]
        self.preemptions = answer["preemptions"]
        # Waiting twice in a row, a step between: the engine does not admit them.
        waits = answer["waiting"] > 0
        self._book.pressed = waits and self._waited
        self._waited = waits
        self._book.update(tuple(row) for row in answer["leases"])

    def _give_up(self, now: float) -> None:
        for name, (lease, deadline) in list(self._cut_off.items()):
            if lease.final is not None:
                del self._cut_off[name]
            elif now >= deadline:
                logger.warning("lease %s: the engine did not say how it ended", name)
                del self._cut_off[name]
                self._book.give_up(lease)

    async def _report(
        self, call: Call, settlements: list[tuple[str, Usage]], charging: bool
    ) -> None:
        limit = self._book.limit
        self._version += 1
        call.offer(self._url, limit, self._book.arrived, self._version, self._longest)
        marks = dict(self._charged) if charging else {}
        try:
            reply = await self._queue.execute(self._sender, call)
        except StoreUnavailableError as error:
            logger.warning("global queue unreachable, going on by local counters: %s", error)
            self._book.recharge()
            await asyncio.sleep(HEARTBEAT_S / 4)
            return
        self._said_limit = limit
        self._book.confirm(settlements)
        # Only a report with charges was made right after an exchange: its counters and marks fit.
        self._heed(reply, marks)

    def _heed(self, reply: Reply, marks: dict[str, float]) -> None:
        self._book.void(reply.voided)
        if reply.policy is not None and reply.policy != self._ordered_by:
            self._ordered_by = self._policy = reply.policy
        for client, counter in reply.counters.items():
            if client in marks:
                self._bases[client] = counter - marks[client]
