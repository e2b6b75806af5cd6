"""Waiting for one's turn: the router's side of one pool's global queue.

Requests of this router share round trips (`Coalescer`). A grant comes in the reply of the very
call that submitted it when a credit was free, else over the router's channel; what neither has
brought within a second is asked for again, so a lost message costs a second, never a request.

A `Turn` is in the hands of one request handler, which must `leave` it in the end, however the
request ended. Before `sending` that is free of charge; after it the replica answers for the lease.
A replica that vanishes without a word (its machine is gone) is noticed by its silence in the store:
whatever waits for it under a `lifeline` then gets a TimeoutError.

A store that has been failing for `AWAY_S` counts as away. Then either a `StandIn` takes over: the
turns that wait move into a queue of this router's own, and back when the store answers again; or,
with `fail_closed`, whoever waits is refused. A store that has forgotten things (`Reply.lost`) is
told of all who wait again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

from fairness.classes import Classes
from fairness.groups import Group
from fairness.limits import Rates
from fairness.observe.call_meter import CallMeter
from fairness.store.breaker import BreakerOpenError
from fairness.store.coalescer import Coalescer
from fairness.store.contract import (
    Call,
    ClientState,
    GlobalQueue,
    Grant,
    GroupState,
    PoolState,
    QueueSettings,
    ReplicaState,
    Reply,
    Sender,
    StoreUnavailableError,
)
from fairness.store.session import Session
from fairness.store.shadow import ShadowReport
from fairness.store.usage import LastDays, Used
from router.clients import Client
from router.errors import ApiError, unavailable
from router.explain.following import Following
from router.explain.story import Story
from router.limits import QueueLimits
from router.rate_limits import limit_reached
from router.stand_in import Ask, StandIn

logger = logging.getLogger(__name__)

RECONCILE_S = 1.0
RECONCILE_LIMIT = 128  # a round, so that submits are not kept waiting
LISTEN_RETRY_S = 0.2
LOOK_S = 0.5
AWAY_S = 1.0  # a store that has failed for so long is away; a restart is often shorter
LEAVE_S = 1.0  # for the last word to the store


class Turn:
    """One request's place in the global queue. Await `grant`, which is an ApiError 429 if a limit
    is reached.

    admitted: let in, on terms. rates: of its limits, once it was let in or refused.
    """

    __slots__ = (
        "admitted",
        "asked",
        "attempt",
        "client",
        "failed",
        "grant",
        "max_output",
        "price",
        "priority",
        "rates",
        "request",
        "size",
        "story",
    )

    def __init__(
        self,
        request: str,
        client: Client,
        size: int,
        *,
        priority: int,
        max_output: int | None,
        price: float,
        now: float,
    ) -> None:
        self.request = request
        self.client = client
        self.size = size
        self.priority = priority
        self.max_output = max_output
        self.price = price
        self.asked = now
        self.admitted = False
        self.rates: Rates | None = None
        self.attempt = 0  # at least the number of its last lease
        self.failed: set[str] = set()
        self.story: Story | None = None
        self.grant: asyncio.Future[Grant] = asyncio.get_running_loop().create_future()


class Turns:
    """All waiting requests of this router for one pool. O(1) and no I/O per operation."""

    def __init__(
        self,
        router: str,
        queue: GlobalQueue,
        limits: QueueLimits,
        settings: QueueSettings,
        *,
        ask: Ask | None = None,
        on_loss: Callable[[], None] = lambda: None,
    ) -> None:
        """ask: reaches replicas while the store is away; None: refuse requests then.
        on_loss: the store has forgotten things."""
        self._sender = Sender("router", router)
        self._queue = queue
        self.limits = limits  # those of the next submit: they may be changed
        self._settings = settings
        self._ask = ask
        self._on_loss = on_loss
        self._session = Session(queue, self._sender)
        self._turns: dict[str, Turn] = {}
        self._in_store: set[str] = set()  # requests that may stand in line there
        self._requests: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._all_bytes = 0
        self._numbers = itertools.count(1)
        self._life = secrets.token_hex(4)
        self.following = Following()
        self._coalescer = Coalescer(self._execute, self._on_reply)
        self._tasks: list[asyncio.Task[None]] = []
        self._became_ready = asyncio.Event()
        self._looking = 0
        self._now = asyncio.get_running_loop().time
        self._silence_s = settings.sender_ttl_ms / 1000
        self._heard: dict[str, float] = {}  # replica -> when it was last seen alive
        self._lifelines: dict[str, set[asyncio.Timeout]] = {}
        self._failing_since: float | None = None
        self._stand_in: StandIn | None = None
        self.pool = PoolState(policy="")  # as last heard
        self.replicas: dict[str, str] = {}  # those that take requests, with their URLs
        self.store_alive = False
        self.calls = CallMeter()
        self.requeued = 0  # requests granted anew, so far

    @property
    def waiting(self) -> int:
        """Requests here without an answer yet."""
        return len(self._turns)

    @property
    def waiting_bytes(self) -> int:
        """Of their bodies."""
        return self._all_bytes

    @property
    def classes(self) -> Classes:
        """The pool's priority classes."""
        return self._settings.classes

    @property
    def ready(self) -> bool:
        """Can a request be granted soon: is there a queue, or will this router keep it itself, and
        is there a replica that takes requests?"""
        return (self.store_alive or self._ask is not None) and bool(self.replicas)

    @property
    def degraded(self) -> bool:
        """Does this router do without the store?"""
        return self._stand_in is not None

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
        for loop in (self._coalescer.run(), self._listen(), self._tend()):
            self._tasks.append(asyncio.create_task(loop))

    async def stop(self) -> None:
        """Stop talking, with a last word to the store."""
        running = set(self._tasks)
        while running:
            for task in running:
                task.cancel()
            # Again if need be: Python 3.11's wait_for, inside the store's client, swallows a
            # cancellation that comes together with its result.
            _, running = await asyncio.wait(running, timeout=1)
        if self._stand_in is not None:
            self._stand_in.stop()
        call = Call()
        call.leave()
        with contextlib.suppress(TimeoutError, StoreUnavailableError):
            async with asyncio.timeout(LEAVE_S):
                await self._session.execute(call)

    def check(self) -> None:
        """Raises RuntimeError when one of the loops has ended."""
        for task in self._tasks:
            if task.done():
                raise RuntimeError(f"a part of the router's link to the queue ended: {task}")
        if self._stand_in is not None:
            self._stand_in.check()

    def set_policy(self, name: str, reason: str) -> None:
        """Order the pool by another policy. Raises ValueError for an unknown one."""
        self._coalescer.pending.policy(name, reason)
        self._coalescer.kick()

    async def clients(self) -> list[ClientState]:
        """Every client of the pool. Raises StoreUnavailableError."""
        return await self._queue.clients()

    async def groups(self) -> list[GroupState]:
        """Every group of the pool. Raises StoreUnavailableError."""
        return await self._queue.groups()

    async def shadow(self) -> ShadowReport:
        """What a fair order would have changed. Raises StoreUnavailableError."""
        return await self._queue.shadow()

    async def last_days(self, clients: Sequence[str] | None = None) -> LastDays:
        """See `fairness.store.usage.UsageSource`. Raises StoreUnavailableError."""
        return await self._queue.last_days(clients)

    async def used_on(self, day: int, clients: Sequence[str] | None = None) -> dict[str, Used]:
        """See `fairness.store.usage.UsageSource`. Raises StoreUnavailableError."""
        return await self._queue.used_on(day, clients)

    def submit(
        self,
        client: Client,
        size: int,
        priority: int = 0,
        max_output: int | None = None,
        *,
        price: float = 1.0,
        story: Story | None = None,
    ) -> Turn:
        """Stand in line with a body of `size` bytes, before the client's other requests of larger
        priority. max_output: tokens that the answer may have, None: unknown. price: see
        `Call.price`. story: written on from here. Raises ApiError 429 when this router's line is
        full."""
        self._check_limits(client.name, size)
        name = f"{self._life}-{next(self._numbers)}"
        turn = Turn(
            name,
            client,
            size,
            priority=priority,
            max_output=max_output,
            price=price,
            now=self._now(),
        )
        if story is not None:
            turn.story = story
            story.price = price
            story.priority_class = self._settings.classes.resolved(client.priority_class)
            self.following.begin(story, turn.request, degraded=self.degraded)
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
        if turn.story is not None:
            turn.story.answer()
        if not self.degraded:
            self._in_store.discard(turn.request)

    def ended(self, turn: Turn) -> None:
        """The answer has come to its end; its replica will say what it took."""
        if turn.admitted and any(limits.concurrency for limits in turn.client.levels):
            call = self._next_call()
            call.ended(turn.request)
            self._tell(call)

    def leave(self, turn: Turn) -> None:
        """The request is over. If no answer had begun, it leaves the queue; free, unless the
        replica had begun to work on it."""
        if self._forget(turn):
            self._cancel(turn.request)

    def retry(self, turn: Turn) -> None:
        """The granted replica failed before the first byte: wait for another grant."""
        lease = turn.grant.result().lease
        self.requeued += 1
        turn.failed.add(lease)
        turn.attempt += 1
        turn.asked = self._now()
        turn.grant = asyncio.get_running_loop().create_future()
        call = self._next_call()
        call.requeue(lease)
        self._tell(call)

    def _check_limits(self, client: str, size: int) -> None:
        limits = self.limits
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

    def _next_call(self) -> Call:
        """The call that the next verbs go into."""
        return self._coalescer.pending if self._stand_in is None else Call()

    def _tell(self, call: Call) -> None:
        """Have it sent, to whoever keeps the queue now."""
        if self._stand_in is None:
            self._coalescer.kick()
        else:
            self._stand_in.tell(call)

    def _send_submit(self, turn: Turn) -> None:
        client = turn.client
        call = self._next_call()
        call.submit(
            turn.request,
            client.name,
            client.weight,
            turn.size,
            attempt=turn.attempt,
            priority=turn.priority,
            groups=self._settings.classes.put(
                client.priority_class,
                (Group(f"{group.name}/", group.weight) for group in client.groups),
            ),
            terms=client.terms(turn.max_output, admitted=turn.admitted),
        )
        if turn.price != 1:
            call.price(turn.request, turn.price)
        if turn.story is not None:
            self.following.ask(turn.story, call, degraded=self.degraded)
        if self._stand_in is None:
            self._in_store.add(turn.request)
        self._tell(call)

    def _cancel(self, request: str) -> None:
        call = self._next_call()
        call.cancel(request)
        if self._stand_in is None:
            self._in_store.discard(request)
        self._tell(call)

    async def _execute(self, call: Call) -> Reply:
        began = self._now()
        try:
            reply = await self._session.execute(call)
            self.calls.succeeded(self._now() - began)
            return reply
        except StoreUnavailableError as error:
            if not isinstance(error, BreakerOpenError):
                self.calls.failed(self._now() - began)
                logger.warning("the global queue is unreachable: %s", error)
            self._on_failure(began)
            raise

    def _on_failure(self, began: float) -> None:
        self.store_alive = False
        if self._failing_since is None:
            self._failing_since = began
        if self.degraded or self._now() - self._failing_since < AWAY_S:
            return
        if self._ask is None:
            for turn in self._waiting():
                turn.grant.set_exception(unavailable("the global queue is out of reach", 2))
        elif self.pool.replicas:
            self._do_without_store(self._ask)

    def _do_without_store(self, ask: Ask) -> None:
        logger.warning("the store is away: this router keeps the queue of its own requests")
        self._stand_in = StandIn(
            self._sender,
            self._settings,
            policy=self.pool.policy,
            replicas=self.replicas,
            ask=ask,
            on_reply=self._on_stand_in,
            heard=self._note_alive,
        )
        self._became_ready.set()
        for turn in self._waiting():
            turn.attempt += 1  # the store may have made its next lease already: this is another one
            self._send_submit(turn)

    def _return_to_store(self) -> None:
        """Move those who wait back; the store forgets those who were served meanwhile."""
        if self._stand_in is None:
            return
        logger.warning("the store is back")
        self._stand_in.stop()
        self._stand_in = None
        waiting = {turn.request for turn in self._waiting()}
        for request in self._in_store - waiting:
            self._cancel(request)
        for turn in self._waiting():
            for lease in turn.failed:
                self._coalescer.pending.requeue(lease)
            self._send_submit(turn)

    def _waiting(self) -> list[Turn]:
        return [turn for turn in self._turns.values() if not turn.grant.done()]

    def _on_reply(self, reply: Reply) -> None:
        if not self.store_alive:
            self.store_alive = True
            self._failing_since = None
            for replica in self._heard:  # none could be heard
                self._note_alive(replica)
            self._return_to_store()
        if reply.lost:
            self._resync()
        if reply.pool is not None:
            self.pool = reply.pool
            self._heed(reply.pool.replicas)
            if self.ready:
                self._became_ready.set()
            else:
                self._became_ready.clear()
        self._on_rates(reply)
        self._on_grants(reply.grants)
        self._on_gone(reply.gone)
        self._on_explained(reply)

    def _resync(self) -> None:
        """Tell a store that has forgotten things all that this router knows."""
        logger.warning("the global queue has forgotten what it was told; telling it again")
        self._on_loss()
        self._coalescer.pending.resync_pool(self.pool)
        for turn in self._waiting():
            self._send_submit(turn)

    def _on_stand_in(self, reply: Reply) -> None:
        self._on_rates(reply)
        self._on_grants(reply.grants)
        self._on_gone(reply.gone)
        self._on_explained(reply)

    def _on_explained(self, reply: Reply) -> None:
        if reply.standings or reply.ends:
            self.following.heed(reply)

    def _on_rates(self, reply: Reply) -> None:
        """Heed what became of requests with limits: let in, or refused."""
        for request, rates in reply.rates.items():
            turn = self._turns.get(request)
            if turn is None:
                continue
            turn.rates = rates
            refusal = reply.refused.get(request)
            turn.admitted = refusal is None
            if refusal is not None and not turn.grant.done():
                self.answered(turn)  # nothing of it waits, neither here nor there
                turn.grant.set_exception(limit_reached(refusal))

    def _on_gone(self, gone: Iterable[str]) -> None:
        for request in gone:
            turn = self._turns.get(request)
            if turn is not None and not turn.grant.done():
                turn.attempt += 1  # of a lease it may have had, unheard of
                self._send_submit(turn)

    def _note_alive(self, replica: str) -> None:
        self._heard[replica] = self._now()

    def _heed(self, replicas: dict[str, ReplicaState]) -> None:
        """Note who lives; cut the lifelines of those silent for too long (not of those that a
        store without its memory has only not heard of yet)."""
        self.replicas = {name: state.url for name, state in replicas.items() if state.taking}
        for name in replicas:
            self._note_alive(name)
        self._cut_silent()

    def _cut_silent(self) -> None:
        now = self._now()
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
            if turn.story is not None:
                turn.story.grant(grant)
            turn.grant.set_result(grant)

    async def _listen(self) -> None:
        while True:
            try:
                async for grants in self._queue.granted(self._sender.name):
                    self._on_grants(grants)
            except StoreUnavailableError:
                await asyncio.sleep(LISTEN_RETRY_S)  # reconciling covers what is missed

    async def _tend(self) -> None:
        """Ask again what became of those who have waited for long."""
        while True:
            await asyncio.sleep(RECONCILE_S)
            if self.degraded:
                self._cut_silent()
            if self.following.tend() and (self.degraded or self.store_alive):
                call = self._next_call()
                call.ends()
                self._tell(call)
            if not self.store_alive:
                continue
            now = self._now()
            due = (turn for turn in self._waiting() if now - turn.asked >= RECONCILE_S)
            for turn in itertools.islice(due, RECONCILE_LIMIT):
                turn.asked = now
                self._coalescer.pending.reconcile(turn.request)
            self._coalescer.kick()
