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

Nothing waits on this loop. When the store is away the engine goes on by its local counters, and
charges, being cumulative, are simply told later. Cost: at most one exchange and one round trip
every `report_interval_s`; none when idle but a heartbeat a second.
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
        settings: LinkSettings,
    ) -> None:
        self._sender = sender
        self._url = url
        self._book = book
        self._exchange = exchange
        self._queue = queue
        self._settings = settings
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._policy: str | None = None  # to tell the engine
        self._ordered_by: str | None = None
        self._bases: dict[str, float] = {}
        self._charged: dict[str, float] = {}
        self._leaving: set[str] = set()
        self._cut_off: dict[str, tuple[Lease, float]] = {}
        self._said_limit = -1
        self._version = 0
        self.kv_usage = 0.0
        self.preemptions = 0

    def wake(self) -> None:
        """Something changed: a lease, or an engine step is done."""
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

    async def run(self) -> None:
        """Exchange and report until cancelled."""
        loop = asyncio.get_running_loop()
        next_charge = next_beat = 0.0
        while True:
            idle = not self._book.busy and not self._bases and self._policy is None
            wait = HEARTBEAT_S if idle else self._settings.charge_interval_s
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._news.wait()
            self._news.clear()
            if self._book.open_leases or not idle:
                await self._exchange_with_engine()
            self._give_up(loop.time())
            now = loop.time()
            charging = now >= next_charge
            call = self._call(charging)
            if len(call) > 1 or self._book.limit != self._said_limit or now >= next_beat:
                if now >= next_beat:
                    call.heartbeat()
                    next_beat = now + HEARTBEAT_S
                if charging:
                    next_charge = now + self._settings.charge_interval_s
                await self._report(call)
            if self._book.draining and not self._book.busy:
                self._idle.set()
            await asyncio.sleep(self._settings.report_interval_s)

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
        self._book.update(
            (tuple(row) for row in answer["leases"]), answer["running"] + answer["waiting"]
        )

    def _give_up(self, now: float) -> None:
        for name, (lease, deadline) in list(self._cut_off.items()):
            if lease.final is not None:
                del self._cut_off[name]
            elif now >= deadline:
                logger.warning("lease %s: the engine did not say how it ended", name)
                del self._cut_off[name]
                self._book.give_up(lease)

    def _call(self, charging: bool) -> Call:
        call = Call()
        self._version += 1
        call.offer(self._url, self._book.limit, self._book.arrived, self._version)
        if charging:
            for lease, usage in self._book.take_charges():
                call.charge(lease, usage)
        for lease, usage in self._book.settlements()[:CALL_LIMIT]:
            call.settle(lease, usage)
        return call

    async def _report(self, call: Call) -> None:
        settled = self._book.settlements()[:CALL_LIMIT]
        limit = self._book.limit
        marks = dict(self._charged)
        try:
            reply = await self._queue.execute(self._sender, call)
        except StoreUnavailableError as error:
            logger.warning("global queue unreachable, going on by local counters: %s", error)
            self._book.recharge()
            await asyncio.sleep(HEARTBEAT_S / 4)
            return
        self._said_limit = limit
        self._book.confirm(settled)
        self._heed(reply, marks)

    def _heed(self, reply: Reply, marks: dict[str, float]) -> None:
        self._book.void(reply.voided)
        if reply.policy is not None and reply.policy != self._ordered_by:
            self._ordered_by = self._policy = reply.policy
        for client, counter in reply.counters.items():
            if client in marks:
                self._bases[client] = counter - marks[client]
