"""One sender's calls, in order and numbered, so that the store can tell new from repeated and
knows what it should know."""

from __future__ import annotations

import logging

from fairness.store.contract import Call, CallRefusedError, GlobalQueue, Reply, Sender

logger = logging.getLogger(__name__)


class Session:
    """Sends calls one at a time. A call that failed may be sent again as it is, or given up for
    another one."""

    def __init__(self, queue: GlobalQueue, sender: Sender) -> None:
        self._queue = queue
        self.sender = sender
        self._number = 0
        self._acked = 0

    async def execute(self, call: Call) -> Reply:
        """One round trip. Raises StoreUnavailableError.

        A verb that the store refuses (a fault of ours) must not keep the others from being
        heard: it is logged and left out.
        """
        try:
            return await self._send(call)
        except CallRefusedError as error:
            if len(call) == 1:
                logger.error("the store refused %s: %s", call.verbs[0][0], error)
                return Reply()
            return merge([await self.execute(Call([verb])) for verb in call.verbs])

    async def _send(self, call: Call) -> Reply:
        if not call.number:
            self._number += 1
            call.number = self._number
        call.acked = self._acked
        reply = await self._queue.execute(self.sender, call)
        self._acked = call.number
        return reply


def merge(replies: list[Reply]) -> Reply:
    """What the calls of several replies would have returned as one."""
    pools = [reply.pool for reply in replies if reply.pool is not None]
    return Reply(
        grants=tuple(grant for reply in replies for grant in reply.grants),
        gone=tuple(request for reply in replies for request in reply.gone),
        counters={name: value for reply in replies for name, value in reply.counters.items()},
        voided=replies[-1].voided,
        unknown=tuple(lease for reply in replies for lease in reply.unknown),
        lost=any(reply.lost for reply in replies),
        pool=pools[-1] if pools else None,
        standings={name: where for reply in replies for name, where in reply.standings.items()},
        ends=tuple(end for reply in replies for end in reply.ends),
    )
