"""What clients receive here, told to the queues of the other pools (`across_pools`).

Money makes service in two pools one thing: a pool has a price for a unit of its service. Here that
is a rate for each neighbour, price here / price there, by which service here becomes service there.

Every `interval_s` the book is asked what each lease has used since; the difference, summed up by
client, is due to every neighbour. To each of them goes one call at a time, when anything is due:
`served_elsewhere` for the clients it is due for. Only truth is told, no estimate: what the engine
has computed, and at the end what the lease is settled with. So in the end each neighbour has been
told exactly what this pool has charged.

A call without a reply may have been heard. It is sent again just as it is, under its number, until
a reply comes; what falls due meanwhile waits. So nothing counts twice, and all that is left out is

- what a replica that dies has not told: that of one interval and one round trip, if the
  neighbour's store answers;
- a call that has had no reply for half an hour, whose number the store may be about to forget.

Cost: O(leases) every interval; a round trip for each neighbour when anything was used in it, with a
record for each client that used it. Nothing on the way of a request. Memory: a record for each
client with something due; while a neighbour's store is away, for each one served.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from fairness.cost import ServiceCost
from fairness.grant_token import GrantToken
from fairness.store.breaker import BreakerOpenError
from fairness.store.contract import Call, GlobalQueue, Sender, StoreUnavailableError
from fairness.store.session import Session
from replicas.lease_book import LeaseBook

logger = logging.getLogger(__name__)

CALL_LIMIT = 256  # clients a call; a long script keeps everyone else waiting
RETRY_S = 0.25
GIVE_UP_S = 1800.0  # the store keeps the number of a neighbour's last call for an hour


@dataclass(frozen=True, slots=True)
class NeighbourSettings:
    """Another pool. rate: service there for one of service here. debt: see
    `Call.served_elsewhere`."""

    pool: str
    rate: float
    debt: float


@dataclass(slots=True)
class _Due:
    service: float
    token: GrantToken  # of the client's newest lease: its weight and groups hold


class Dues:
    """What one neighbour is still to be told, by client. Pure."""

    def __init__(self, rate: float, debt: float) -> None:
        """See `NeighbourSettings`."""
        self._rate = rate
        self._debt = debt
        self._due: dict[str, _Due] = {}

    def __bool__(self) -> bool:
        return bool(self._due)

    def add(self, token: GrantToken, service: float) -> None:
        """The token's client has had so much more service here; below 0: less."""
        service *= self._rate
        due = self._due.get(token.client)
        if due is None:
            self._due[token.client] = _Due(service, token)
        else:
            due.service += service
            due.token = token

    def take(self) -> Call:
        """What is due, or a part of it, as a call."""
        call = Call()
        for client in list(islice(self._due, CALL_LIMIT)):
            due = self._due.pop(client)
            token = due.token
            call.served_elsewhere(client, token.weight, due.service, self._debt, token.groups)
        return call


class Neighbour:
    """The link to one other pool's queue."""

    def __init__(
        self, replica: str, queue: GlobalQueue, settings: NeighbourSettings, interval_s: float
    ) -> None:
        """replica: the name of this one. interval_s: between two calls."""
        self._pool = settings.pool
        self._session = Session(queue, Sender("neighbour", replica))
        self._interval_s = interval_s
        self._dues = Dues(settings.rate, settings.debt)
        self._call: Call | None = None  # without a reply yet
        self._called_at = 0.0
        self._told_all = asyncio.Event()
        self._told_all.set()

    def owe(self, token: GrantToken, service: float) -> None:
        """See `Dues.add`."""
        self._dues.add(token, service)
        self._told_all.clear()

    async def told_all(self) -> None:
        """Returns when nothing is due."""
        await self._told_all.wait()

    async def keep_telling(self) -> None:
        """Tell what is due until cancelled."""
        while True:
            pause_s = self._interval_s
            try:
                await self.tell()
            except BreakerOpenError as error:
                pause_s = error.retry_in_s
            except StoreUnavailableError as error:
                pause_s = RETRY_S
                logger.warning("the queue of %s is out of reach: %s", self._pool, error)
            await asyncio.sleep(pause_s)

    async def tell(self) -> None:
        """Say all that is due. Raises StoreUnavailableError; the next time goes on with the same
        call."""
        now = asyncio.get_running_loop().time
        while self._dues or self._call is not None:
            if self._call is None:
                self._call, self._called_at = self._dues.take(), now()
            if now() - self._called_at > GIVE_UP_S:
                logger.error("%s may not have heard a call; it is given up", self._pool)
            else:
                await self._session.execute(self._call)
            self._call = None
        self._told_all.set()


class Neighbours:
    """All other pools, told what the leases of one book have used."""

    def __init__(
        self, book: LeaseBook, cost: ServiceCost, neighbours: Sequence[Neighbour], interval_s: float
    ) -> None:
        """interval_s: between two looks at the book."""
        self._book = book
        self._cost = cost
        self._neighbours = neighbours
        self._interval_s = interval_s
        if neighbours:
            self.look()  # from now on the book keeps what ends

    async def run(self) -> None:
        """Look and tell until cancelled. Without neighbours it only waits for that."""
        if not self._neighbours:
            await asyncio.Event().wait()
        async with asyncio.TaskGroup() as loops:
            for neighbour in self._neighbours:
                loops.create_task(neighbour.keep_telling())
            while True:
                self.look()
                await asyncio.sleep(self._interval_s)

    async def drain(self) -> None:
        """Returns when all that was used until now is told (`run` must go on)."""
        if self._neighbours:
            self.look()
            for neighbour in self._neighbours:
                await neighbour.told_all()

    def look(self) -> None:
        """Take from the book what is due."""
        for token, before, now in self._book.take_spent():
            service = self._cost.of(now.input, now.output, now.cached) - self._cost.of(
                before.input, before.output, before.cached
            )
            service *= token.price
            if service:
                for neighbour in self._neighbours:
                    neighbour.owe(token, service)
