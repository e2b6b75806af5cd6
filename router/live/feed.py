"""Server-sent events of one pool: what the observer saw, to many watchers at once.

The observer of this router reads the store whether anyone watches or not. Each observation is
encoded once and put before every watcher; one that has not yet taken the frame before it gets only
the newest, so a slow one costs a reference, never a queue.

A stream ends by itself after `LIFE_S`, and whoever watches asks again. Ray Serve waits for all that
is open before it tells a router that it is to stop (`router.drain_s`, minutes), so a page that
somebody left open would hold up each update; asked again, HAProxy sends it to a router that stays.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

from fairness.observe.observation import Observation
from router.errors import unavailable

WATCHERS = 500  # of one router and pool
ALIVE_S = 5.0  # of silence, after which a comment says that the connection lives
ALIVE = b": alive\n\n"
LIFE_S = 20.0  # of a stream, at most: a page that is asked again costs about a millisecond
RETRY = b"retry: 200\n\n"  # milliseconds


class _Watcher:
    __slots__ = ("frame", "ready")

    def __init__(self, frame: bytes | None) -> None:
        self.frame = frame
        self.ready = asyncio.Event()
        if frame is not None:
            self.ready.set()


class Feed:
    """One pool's."""

    def __init__(self, most: int = WATCHERS, life_s: float = LIFE_S) -> None:
        self._most = most
        self._life_s = life_s
        self._watchers: set[_Watcher] = set()
        self._frame: bytes | None = None
        self._closed = False

    def __len__(self) -> int:
        return len(self._watchers)

    def tell(self, seen: Observation) -> None:
        """Show it to all who watch. O(watchers)."""
        self._frame = b"event: observation\ndata: " + seen.to_json() + b"\n\n"
        for watcher in self._watchers:
            watcher.frame = self._frame
            watcher.ready.set()

    def close(self) -> None:
        """End all streams, so that the router can."""
        self._closed = True
        for watcher in self._watchers:
            watcher.ready.set()

    def watch(self) -> AsyncIterator[bytes]:
        """Frames from the last one on, for as long as they are asked for.

        Raises ApiError 503 when too many watch this router.
        """
        if len(self._watchers) >= self._most:
            raise unavailable(f"{self._most} pages watch this router already; close some", 10)
        return self._frames()

    async def _frames(self) -> AsyncIterator[bytes]:
        watcher = _Watcher(self._frame)
        self._watchers.add(watcher)
        try:
            yield RETRY
            clock = asyncio.get_running_loop().time
            # Not all at once: pages that lost the same router came in the same moment.
            until = clock() + self._life_s * random.uniform(0.75, 1)
            while not self._closed and (left := until - clock()) > 0:
                try:
                    async with asyncio.timeout(min(ALIVE_S, left)):
                        await watcher.ready.wait()
                except TimeoutError:
                    if left > ALIVE_S:
                        yield ALIVE
                    continue
                watcher.ready.clear()
                if watcher.frame is not None and not self._closed:
                    yield watcher.frame
        finally:
            self._watchers.discard(watcher)
