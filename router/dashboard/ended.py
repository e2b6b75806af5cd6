"""Sessions that were ended before their time. Every router must know, so the store does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from fairness.store.contract import StoreUnavailableError
from router.dashboard.sessions import Session
from router.directory.store import DirectoryStore

logger = logging.getLogger(__name__)

FRESH_S = 2.0  # what was read is believed for so long


class EndedSessions:
    """One router's view: at most one read of the store every `FRESH_S`, and only while somebody
    asks. While the store is away, what is known holds."""

    def __init__(self, store: DirectoryStore, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._names: frozenset[str] = frozenset()
        self._here: set[str] = set()  # ended at this router while the store was away
        self._read_at = -FRESH_S
        self._reading = asyncio.Lock()

    async def end(self, session: Session) -> None:
        """It holds no more: here at once, on the other routers within `FRESH_S`. Raises
        StoreUnavailableError when those can't be told now."""
        self._here.add(session.name)
        await self._store.end_session(session.name, session.expires)
        self._here.discard(session.name)
        self._names |= {session.name}

    async def has(self, session: Session) -> bool:
        """Was it ended?"""
        async with self._reading:
            if self._clock() - self._read_at >= FRESH_S:
                self._read_at = self._clock()
                try:
                    self._names = frozenset(await self._store.ended_sessions())
                except StoreUnavailableError as error:
                    logger.warning("ended sessions can't be read: %s", error)
        return session.name in self._names or session.name in self._here
