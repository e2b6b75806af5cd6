"""The queue of one router while the store is away (the degraded mode).

The same queue, in memory, over this router's requests and its share of each replica's room. A task
a replica asks it a few times a second, at its own port, how much room it has for this router and
what its leases have used, and tells the queue so as the replica itself would tell the store. Fair
among the clients of this router, to the replica's own counters inside each batch; between routers
the replicas' equal shares are all there is. Nothing is pushed when the store comes back: the leases
are on the replicas' books, and they report them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field

import orjson

from fairness.grant_token import HEADER, GrantToken
from fairness.store.contract import Call, Grant, QueueSettings, Reply, Sender, Usage
from fairness.store.memory_store import MemoryPool
from fairness.store.stand_in import PATH, Answer, LeaseState, Question
from router.trunks import Trunks

logger = logging.getLogger(__name__)

ASK_INTERVAL_S = 0.1
ASK_TIMEOUT_S = 2.0
TOKEN_TTL_S = 15.0

Ask = Callable[[str, str, Question], Awaitable[Answer]]
"""(replica, url, question) -> answer. Raises OSError, TimeoutError, and ValueError for an answer
that makes no sense."""


@dataclass(slots=True)
class _Port:
    """One replica: what this router has there."""

    url: str
    granted: int = 0
    version: int = 0
    leases: dict[str, Usage] = field(default_factory=dict)


class StandIn:
    """Runs until `stop`. O(leases of this router) a question; granting costs no I/O."""

    def __init__(
        self,
        router: Sender,
        settings: QueueSettings,
        *,
        policy: str,
        replicas: Mapping[str, str],
        ask: Ask,
        on_reply: Callable[[Reply], None],
        heard: Callable[[str], None],
    ) -> None:
        """replicas: name -> URL, those last known to take requests. on_reply: what `tell` and
        later events bring. heard: a replica has answered."""
        self._router = router
        self._pool = MemoryPool(settings, lambda: int(time.monotonic() * 1000), self._publish)
        self._ports = {name: _Port(url) for name, url in replicas.items()}
        self._ask = ask
        self._on_reply = on_reply
        self._heard = heard
        call = Call()
        call.policy(policy, "as it was")
        self._pool.apply(router, call)
        self._tasks = [
            asyncio.create_task(self._keep_asking(name, port)) for name, port in self._ports.items()
        ]

    def check(self) -> None:
        """Raises RuntimeError when a replica is not asked any more."""
        for task in self._tasks:
            if task.done():
                raise RuntimeError(f"a part of the router's stand-in queue ended: {task}")

    def stop(self) -> None:
        """Ask no more."""
        for task in self._tasks:
            task.cancel()

    def tell(self, call: Call) -> None:
        """Apply a call of the router; the reply goes to `on_reply`."""
        reply = self._pool.apply(self._router, call)
        self._note(reply.grants)
        self._on_reply(reply)

    def _publish(self, _router: str, grants: tuple[Grant, ...]) -> None:
        self._note(grants)
        self._on_reply(Reply(grants=grants))

    def _note(self, grants: tuple[Grant, ...]) -> None:
        for grant in grants:
            port = self._ports[grant.replica]
            if grant.lease not in port.leases:  # else told again
                port.granted += 1
                port.leases[grant.lease] = Usage()

    async def _keep_asking(self, replica: str, port: _Port) -> None:
        while True:
            try:
                answer = await self._ask(
                    replica, port.url, Question(self._router.name, tuple(port.leases))
                )
            except (OSError, TimeoutError, ValueError) as error:
                logger.warning("replica %s does not answer: %s", replica, error)
                self._offer(replica, port, Call(), 0, 0)
            else:
                self._heard(replica)
                self._heed(replica, port, answer)
            await asyncio.sleep(ASK_INTERVAL_S)

    def _heed(self, replica: str, port: _Port, answer: Answer) -> None:
        call = Call()
        on_their_way = 0
        for lease in list(port.leases):
            state, usage = answer.leases.get(lease, (LeaseState.UNKNOWN, Usage()))
            if state is LeaseState.OPEN:
                call.charge(lease, usage)
                port.leases[lease] = usage
            elif state is LeaseState.OVER:
                last_heard = port.leases.pop(lease)
                call.settle(lease, usage if usage != Usage() else last_heard)
            else:
                on_their_way += 1
        self._offer(replica, port, call, max(0, answer.room - on_their_way), answer.longest)

    def _offer(self, replica: str, port: _Port, call: Call, room: int, longest: int) -> None:
        self.tell(Call())  # this router lives: it waits for what the offer may grant
        port.version += 1
        call.offer(port.url, port.granted + room if room else 0, 0, port.version, longest)
        reply = self._pool.apply(Sender("replica", replica), call)
        for lease in reply.voided:  # the router gave it up before the replica saw it
            port.leases.pop(lease, None)
            confirmed = Call()
            confirmed.settle(lease, Usage())
            self._pool.apply(Sender("replica", replica), confirmed)


def asking(trunks: Trunks, grant_key: Callable[[], bytes]) -> Ask:
    """Ask at the replica's port, with a token that only routers can make; `grant_key` tells the
    key by now."""

    async def ask(replica: str, url: str, question: Question) -> Answer:
        token = GrantToken("", "", replica, time.time() + TOKEN_TTL_S).encode(grant_key())
        body = orjson.dumps(question.to_json())
        async with asyncio.timeout(ASK_TIMEOUT_S):
            answer = await trunks.ask(replica, url, PATH, [(HEADER, token)], body)
            with closing(answer):
                content = await answer.rest()
        if answer.status != 200:
            raise ValueError(f"it refuses: {content.decode(errors='replace')}")
        return Answer.from_json(orjson.loads(content))

    return ask
