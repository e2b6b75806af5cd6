"""The replica's side of the global queue: offers, charges and settlements out, counters in.

Two loops:

1. `exchange` with the scheduler, between two engine steps: give it the counters last read, take
   what leases and clients have used by now.
2. If there is news, one call to the store: the window, the charges (at most every
   `charge_interval_s`), the settlements. The reply names the clients' global counters. Neither a
   long engine step nor a slow store keeps the other loop waiting.

A client's counter in the batch is `base + charged`, where `charged` is what this engine has
charged it in all and `base = global counter - charged`, both as of the exchange whose totals were
reported: the batch follows the global order, and what happens in between is never counted twice.

When the store is away the engine goes on by its local counters, and charges, being cumulative, are
simply told later. A store that has forgotten (`Reply.lost`) is told every lease and counter again;
one that does not know a single lease (`Reply.unknown`: its grant was lost, or made by a router
while the store was away) is told that one, and charged for it in full.

Cost: while requests wait for the engine at most one exchange every `report_interval_s`, else one
every `charge_interval_s`; a round trip when there is something to say; none when idle but a
heartbeat a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fairness.grant_token import GrantToken
from fairness.groups import is_group
from fairness.observe.call_meter import CallMeter
from fairness.store.breaker import BreakerOpenError
from fairness.store.contract import (
    Call,
    GlobalQueue,
    PoolState,
    Reply,
    Sender,
    StoreUnavailableError,
    Usage,
)
from fairness.store.session import Session
from replicas.counter_lag import Lag, LagMeter
from replicas.lease_book import Holding, Lease, LeaseBook

logger = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
ENGINE_SILENCE_S = 5.0  # how long a cut-off lease waits for the engine's last word
CALL_LIMIT = 256  # settlements a call; a long script keeps everyone else waiting
RETRY_S = HEARTBEAT_S / 4
LEAVE_S = 1.0  # for the last word to the store

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
        on_loss: Callable[[], None] = lambda: None,
        on_lag: Callable[[Lag], None] = lambda lag: None,
    ) -> None:
        """longest: prompt, in tokens. on_loss: the store has forgotten things. on_lag: told every
        second how far the engine's counters lagged behind in it."""
        self._url = url
        self._book = book
        self._exchange = exchange
        self._session = Session(queue, sender)
        self._settings = settings
        self._longest = longest
        self._on_loss = on_loss
        self._on_lag = on_lag
        self._lag = LagMeter()
        self._exchanged_at = self._heard_as_of = 0.0
        self._for_engine = asyncio.Event()
        self._for_store = asyncio.Event()
        self._for_store.set()  # the first offer
        self._idle = asyncio.Event()
        self._new_policy: str | None = None  # to tell the engine
        self._pool = PoolState(policy="")
        self._pool_waiting = 0
        self._bases: dict[str, tuple[float, float]] = {}  # client -> (base, charged as of it)
        self._charged: dict[str, float] = {}
        self._heard: dict[str, tuple[float, float]] = {}  # client -> (counter, charged then)
        self._leaving: set[str] = set()
        self._cut_off: dict[str, tuple[Lease, float]] = {}
        self._unknown: list[str] = []
        self._lost = False
        self._said_limit = -1
        self._version = 0
        self._waited = False
        self.kv_usage = 0.0
        self.preemptions = 0
        self.calls = CallMeter()

    @property
    def book(self) -> LeaseBook:
        """The leases."""
        return self._book

    @property
    def pool_waiting(self) -> int:
        """Requests in the global queue, as of the last heartbeat; 0 while the store is away, where
        a number would only grow old."""
        return self._pool_waiting

    def wake(self) -> None:
        """Something changed."""
        self._for_engine.set()
        self._for_store.set()

    def open(self, token: GrantToken) -> Lease:
        """A granted request arrived. Raises DuplicateLeaseError.

        Neither engine nor store is told before the next step (`step_done`): it would only delay the
        first token.
        """
        return self._book.open(token)

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
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._keep_exchanging())
            loops.create_task(self._keep_reporting())

    async def _keep_exchanging(self) -> None:
        while True:
            await self._wait_for(self._for_engine)
            if self._book.busy or self._wants_exchange():
                await self._exchange_with_engine()
                self._give_up(asyncio.get_running_loop().time())
                if self._book.settlements(1) or self._book.limit != self._said_limit:
                    self._for_store.set()
            await asyncio.sleep(self._settings.report_interval_s)

    async def _keep_reporting(self) -> None:
        loop = asyncio.get_running_loop()
        next_charge = next_beat = 0.0
        while True:
            await self._wait_for(self._for_store)
            now = loop.time()
            call = Call()
            if now >= next_beat:
                call.heartbeat()
                next_beat = now + HEARTBEAT_S
                if not self._book.busy:
                    self._lag.idle()
                self._on_lag(self._lag.take(now))
            charging = self._book.busy and now >= next_charge
            if charging:
                next_charge = now + self._settings.charge_interval_s
            settlements = self._book.settlements(CALL_LIMIT)
            if charging or call or settlements or self._book.limit != self._said_limit:
                await self._report(call, settlements, charging)
            if self._book.draining and not self._book.busy:
                self._idle.set()
            await asyncio.sleep(self._settings.report_interval_s)

    async def _wait_for(self, news: asyncio.Event) -> None:
        patience = self._settings.charge_interval_s if self._book.busy else HEARTBEAT_S
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await news.wait()
        news.clear()

    def _wants_exchange(self) -> bool:
        return bool(
            self._book.unstarted
            or self._cut_off
            or self._bases
            or self._new_policy
            or self._leaving
            or self._book.has_departed  # the store may confirm before the engine is asked again
        )

    async def drain(self) -> None:
        """Take no more grants; returns when every lease is settled (`run` must go on)."""
        self._book.draining = True
        self.wake()
        await self._idle.wait()

    async def leave(self) -> None:
        """Tell the store that this replica is gone, so that nobody waits for it."""
        call = Call()
        call.leave()
        with contextlib.suppress(TimeoutError, StoreUnavailableError):
            async with asyncio.timeout(LEAVE_S):
                await self._session.execute(call)

    async def _exchange_with_engine(self) -> None:
        update: dict[str, Any] = {}
        bases, self._bases = self._bases, {}
        as_of = self._heard_as_of
        if bases:
            update["base"] = {client: base for client, (base, _) in bases.items()}
        if self._new_policy is not None:
            update["policy"], self._new_policy = self._new_policy, None
        leaving = {*self._leaving, *self._book.take_departed()}
        if leaving:
            update["forget"] = list(leaving)
        answer = await self._exchange(update)
        self._exchanged_at = asyncio.get_running_loop().time()
        charged = answer["charged"]
        if bases:
            since = (charged.get(client, mark) - mark for client, (_, mark) in bases.items())
            self._lag.in_use(as_of, self._exchanged_at, since)
        for client in leaving:
            self._charged.pop(client, None)
            self._heard.pop(client, None)
        self._leaving = leaving & charged.keys()  # still live there: ask again
        for group in [node for node in self._charged if is_group(node) and node not in charged]:
            del self._charged[group]
            self._heard.pop(group, None)
        self._charged.update(charged)
        self.kv_usage = answer["kv_usage"]
        self._book.fits = answer["fits"]
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
        if self._lost:
            settlements = self._resync(call)
        for lease in self._unknown:
            holding = self._book.holding(lease)
            if holding is not None:
                _tell(call, holding)
        # The totals of leases and clients are of the same exchange, so counters that come back
        # for these charges can be told from what the engine has charged since (`marks`).
        marks, as_of = {}, self._exchanged_at
        if charging:
            marks = dict(self._charged)
            for name, usage in self._book.take_charges():
                call.charge(name, usage)
        for name, usage in settlements:
            call.settle(name, usage)
        now = asyncio.get_running_loop().time
        began = now()
        try:
            reply = await self._session.execute(call)
            self.calls.succeeded(now() - began)
        except StoreUnavailableError as error:
            self._pool_waiting = 0
            self._book.recharge()
            if isinstance(error, BreakerOpenError):
                await asyncio.sleep(error.retry_in_s)
            else:
                self.calls.failed(now() - began)
                logger.warning("global queue unreachable, going on by local counters: %s", error)
                await asyncio.sleep(RETRY_S)
            return
        self._said_limit = limit
        if reply.counters and marks:
            self._heard_as_of = as_of
        self._heed(reply, marks, settlements)

    def _resync(self, call: Call) -> list[tuple[str, Usage]]:
        """Say all that is known here; the settlements to say again."""
        call.resync_pool(self._pool)
        for holding in self._book.open_holdings():
            _tell(call, holding)
        settled = self._book.settled_holdings()
        for holding in settled:
            _tell(call, holding)
        for client, (counter, mark) in self._heard.items():
            call.resync_client(client, counter + self._charged.get(client, mark) - mark)
        return [(holding.lease, holding.usage) for holding in settled]

    def _heed(
        self, reply: Reply, marks: dict[str, float], settlements: list[tuple[str, Usage]]
    ) -> None:
        self._book.void(reply.voided)
        if reply.lost:
            logger.warning("the global queue has forgotten what it was told; telling it again")
            self._lost = True
            self._on_loss()
            self.wake()
            return
        self._lost = False
        self._unknown = list(reply.unknown)
        unknown = set(reply.unknown)
        self._book.confirm(
            (lease, usage)
            for lease, usage in settlements
            if lease not in unknown or self._book.holding(lease) is None
        )
        if reply.pool is not None:
            if reply.pool.policy != self._pool.policy:
                self._new_policy = reply.pool.policy
            self._pool = reply.pool
            self._pool_waiting = reply.pool.waiting
        for client, counter in reply.counters.items():
            if client in marks:
                self._bases[client] = (counter - marks[client], marks[client])
                self._heard[client] = (counter, marks[client])
        if self._bases or self._new_policy:
            self._for_engine.set()
        if unknown or len(self._book.settlements(CALL_LIMIT)) == CALL_LIMIT:
            self._for_store.set()


def _tell(call: Call, holding: Holding) -> None:
    call.resync_lease(holding.lease, holding.client, holding.weight, holding.usage, holding.groups)
    if holding.price != 1:
        call.price(holding.lease.rpartition(".")[0], holding.price)
