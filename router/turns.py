"""Waiting for one's turn: the router's side of one pool's global queue.

Requests of this router share round trips (`Coalescer`). A grant comes in the reply of the very
call that submitted it when a credit was free, else over the router's channel; what neither has
brought within a second is asked for again, so a lost message costs a second, never a request.

A `Turn` is in the hands of one request handler, which must `leave` it in the end, however the
request ended. Before `sending` that is free of charge; after it the replica answers for the lease.
A replica that vanishes without a word (its machine is gone) is noticed by its silence in the store:
whatever waits for it under a `lifeline` then gets a TimeoutError.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from fairness.store.coalescer import Coalescer
from fairness.store.contract import (
    Call,
    ClientState,
    GlobalQueue,
    Grant,
    ReplicaState,
    Reply,
    Sender,
    StoreUnavailableError,
)
from router.clients import Client
from router.errors import ApiError

logger = logging.getLogger(__name__)

RECONCILE_S = 1.0
RECONCILE_LIMIT = 128  # a round, so that submits are not kept waiting
LISTEN_RETRY_S = 0.2
LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What may wait in one router, so that no client can fill its memory."""

    requests_per_client: int = 2_000
    requests: int = 20_000
    bytes_per_client: int = 256 * 2**20
    bytes: int = 1024 * 2**20


class Turn:
    """One request's place in the global queue. Await `grant`."""

    __slots__ = (
        "asked",
        "attempt",
        "client",
        "failed",
        "grant",
        "request",
        "sent",
        "size",
    )

    def __init__(self, request: str, client: Client, size: int, now: float) -> None:
        self.request = request
        self.client = client
        self.size = size
        self.asked = now
        self.sent = False
        self.attempt = 0  # at least the number of its last lease
        self.failed: set[str] = set()
        self.grant: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()


class Turns:
    """All waiting requests of this router for one pool. O(1) and no I/O per operation."""

    def __init__(
        self,
        router: str,
        queue: GlobalQueue,
        limits: QueueLimits,
        silence_s: float,
    ) -> None:
        """silence_s: a replica that the store has not heard of for so long is gone."""
        self._sender = Sender("router", router)
        self._queue = queue
        self._limits = limits
        self._turns: dict[str, Turn] = {}
        self._requests: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._all_bytes = 0
        self._numbers = itertools.count(1)
        self._life = secrets.token_hex(4)
        self._coalescer = Coalescer(self._execute, self._sender, self._on_reply)
        self._tasks: list[asyncio.Task[None]] = []
        self._became_ready = asyncio.Event()
        self._looking = 0
        self._now = asyncio.get_running_loop().time
        self._silence_s = silence_s
        self._heard: dict[str, float] = {}  # replica -> when it was last seen alive
        self._lifelines: dict[str, set[asyncio.Timeout]] = {}
        self.replicas: dict[str, str] = {}  # those that take requests, with their URLs
        self.policy: str | None = None
        self.store_alive = False

    @property
    def ready(self) -> bool:
        """Can a request be granted soon: is the store there, and a replica that takes requests?"""
        return self.store_alive and bool(self.replicas)

    async def look(self) -> bool:
        """`ready`; when it does not look so, ask the store and wait a moment: what is known may be
        a heartbeat old. One round trip for all who ask at once."""
        if not self.ready:
            if not self._looking:
                self._coalescer.pending.heartbeat()
                self._coalescer.kick()
            self._looking += 1
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._became_ready.wait()
            except TimeoutError:
                return False
            finally:
                self._looking -= 1
        return self.ready

    def start(self) -> None:
        """Begin to talk to the store."""
        for loop in (self._coalescer.run(), self._listen(), self._reconcile()):
            self._tasks.append(asyncio.create_task(loop))

    async def stop(self) -> None:
        """Stop talking."""
        running = set(self._tasks)
        while running:
            for task in running:
                task.cancel()
            # Again if need be: Python 3.11's wait_for, inside the store's client, swallows a
            # cancellation that comes together with its result.
            _, running = await asyncio.wait(running, timeout=1)

    def check(self) -> None:
        """Raises RuntimeError when one of the loops has ended."""
        for task in self._tasks:
            if task.done():
                raise RuntimeError(f"a part of the router's link to the queue ended: {task}")

    def set_policy(self, name: str, reason: str) -> None:
        """Order the pool by another policy. Raises ValueError for an unknown one."""
        self._coalescer.pending.policy(name, reason)
        self._coalescer.kick()

    async def clients(self) -> list[ClientState]:
        """Every client of the pool. Raises StoreUnavailableError."""
        return await self._queue.clients()

    def submit(self, client: Client, size: int) -> Turn:
        """Stand in line with a body of `size` bytes. Raises ApiError 429 when the line is full."""
        self._check_limits(client.name, size)
        turn = Turn(f"{self._life}-{next(self._numbers)}", client, size, self._now())
        self._turns[turn.request] = turn
        self._requests[client.name] += 1
        self._bytes[client.name] += size
        self._all_bytes += size
        self._send_submit(turn)
        return turn

    @contextlib.asynccontextmanager
    async def lifeline(self, replica: str) -> AsyncIterator[None]:
        """Raises TimeoutError inside when `replica` is gone for good."""
        lifelines = self._lifelines.setdefault(replica, set())
        async with asyncio.timeout(None) as timeout:
            lifelines.add(timeout)
            try:
                yield
            finally:
                lifelines.discard(timeout)
                if not lifelines:
                    self._lifelines.pop(replica, None)

    def answered(self, turn: Turn) -> None:
        """The answer has begun: nothing of the request waits here any more."""
        self._forget(turn)

    def sending(self, turn: Turn) -> Grant:
        """The replica is being asked: from now on it charges and settles the lease."""
        turn.sent = True
        return turn.grant.result()

    def leave(self, turn: Turn) -> None:
        """The request is over. If it was not sent, it leaves the queue, free."""
        if self._forget(turn) and not turn.sent:
            self._coalescer.pending.cancel(turn.request)
            self._coalescer.kick()

    def retry(self, turn: Turn) -> None:
        """The granted replica failed before the first byte: wait for another grant."""
        lease = turn.grant.result().lease
        turn.failed.add(lease)
        turn.attempt += 1
        turn.sent = False
        turn.asked = self._now()
        turn.grant = asyncio.get_running_loop().create_future()
        self._coalescer.pending.requeue(lease)
        self._coalescer.kick()

    def _check_limits(self, client: str, size: int) -> None:
        limits = self._limits
        if self._requests[client] >= limits.requests_per_client:
            which = f"{limits.requests_per_client} waiting requests of one client"
        elif len(self._turns) >= limits.requests:
            which = f"{limits.requests} waiting requests of all clients"
        elif self._bytes[client] + size > limits.bytes_per_client:
            which = f"{limits.bytes_per_client} waiting bytes of one client"
        elif self._all_bytes + size > limits.bytes:
            which = f"{limits.bytes} waiting bytes of all clients"
        else:
            return
        raise ApiError(
            429,
            f"this router's limit of {which} is reached; wait for answers before asking more",
            "rate_limit_error",
            "queue_full",
            retry_after_s=1,
        )

    def _forget(self, turn: Turn) -> bool:
        if self._turns.pop(turn.request, None) is None:
            return False
        for sums, amount in ((self._requests, 1), (self._bytes, turn.size)):
            sums[turn.client.name] -= amount
            if not sums[turn.client.name]:
                del sums[turn.client.name]
        self._all_bytes -= turn.size
        return True

    def _send_submit(self, turn: Turn) -> None:
        client = turn.client
        self._coalescer.pending.submit(
            turn.request, client.name, client.weight, turn.size, turn.attempt
        )
        self._coalescer.kick()

    async def _execute(self, sender: Sender, call: Call) -> Reply:
        try:
            return await self._queue.execute(sender, call)
        except StoreUnavailableError as error:
            if self.store_alive:
                logger.warning("the global queue is unreachable: %s", error)
            self.store_alive = False
            self._became_ready.clear()
            raise

    def _on_reply(self, reply: Reply) -> None:
        self.store_alive = True
        if reply.replicas is not None:
            self.policy = reply.policy
            self._heed(reply.replicas)
            if self.ready:
                self._became_ready.set()
            else:
                self._became_ready.clear()
        self._on_grants(reply.grants)
        for request in reply.gone:
            turn = self._turns.get(request)
            if turn is not None and not turn.grant.done():
                turn.attempt += 1  # of a lease it may have had, unheard of
                self._send_submit(turn)

    def _heed(self, replicas: dict[str, ReplicaState]) -> None:
        """Note who lives; cut the lifelines of those silent for too long (not of those that a
        store without its memory has only not heard of yet)."""
        now = self._now()
        self.replicas = {name: state.url for name, state in replicas.items() if state.taking}
        self._heard |= dict.fromkeys(replicas, now)
        for name, heard in list(self._heard.items()):
            if now - heard > self._silence_s:
                del self._heard[name]
                for timeout in self._lifelines.pop(name, set()):
                    timeout.reschedule(now)

    def _on_grants(self, grants: Iterable[Grant]) -> None:
        for grant in grants:
            turn = self._turns.get(grant.request)
            if turn is None or turn.grant.done() or grant.lease in turn.failed:
                continue  # cancelled meanwhile, or told twice
            turn.grant.set_result(grant)

    async def _listen(self) -> None:
        while True:
            try:
                async for grants in self._queue.granted(self._sender.name):
                    self._on_grants(grants)
            except StoreUnavailableError:
                await asyncio.sleep(LISTEN_RETRY_S)  # reconciling covers what is missed

    async def _reconcile(self) -> None:
        while True:
            await asyncio.sleep(RECONCILE_S)
            if not self.store_alive:
                continue
            now = self._now()
            due = (
                turn
                for turn in self._turns.values()
                if not turn.grant.done() and now - turn.asked >= RECONCILE_S
            )
            for turn in itertools.islice(due, RECONCILE_LIMIT):
                turn.asked = now
                self._coalescer.pending.reconcile(turn.request)
            self._coalescer.kick()
