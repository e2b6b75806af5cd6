"""Server-sent events of one pool: what the observer saw, to many watchers at once.

The observer of this router reads the store whether anyone watches or not. Each observation is
encoded once and put before every watcher; one that has not yet taken the frame before it gets only
the newest, so a slow one costs a reference, never a queue.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fairness.observe.observation import Observation
from router.errors import unavailable

WATCHERS = 500  # of one router and pool
ALIVE_S = 5.0  # of silence, after which a comment says that the connection lives
ALIVE = b": alive\n\n"


class _Watcher:
    __slots__ = ("frame", "ready")

    def __init__(self, frame: bytes | None) -> None:
        self.frame = frame
        self.ready = asyncio.Event()
        if frame is not None:
            self.ready.set()


class Feed:
    """One pool's."""

    def __init__(self, most: int = WATCHERS) -> None:
        self._most = most
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
            yield b"retry: 2000\n\n"
            while not self._closed:
                try:
                    async with asyncio.timeout(ALIVE_S):
                        await watcher.ready.wait()
                except TimeoutError:
                    yield ALIVE
                    continue
                watcher.ready.clear()
                if watcher.frame is not None and not self._closed:
                    yield watcher.frame
        finally:
            self._watchers.discard(watcher)
