"""All that a router shows of its pools, put together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping

import orjson

from fairness.observe.board import Board
from fairness.observe.history import Point
from fairness.observe.observation import Observation
from fairness.observe.observer import Observer
from fairness.observe.standing import Standing
from router.live.charts import SPANS, Span, columns, thinned
from router.live.feed import Feed
from router.live.smooth import smoothed

LATELY = 15  # observations
FRESH_S = 4.0  # a chart that was made is handed out again for so long


class LivePool:
    """One pool's. `tell` it each new observation."""

    def __init__(self, board: Board, standing: Standing) -> None:
        self.standing = standing
        self.feed = Feed()
        self._board = board
        self._observer: Observer | None = None
        self._lately: deque[Observation] = deque(maxlen=LATELY)
        self._charts = {name: _Chart(board, span) for name, span in SPANS.items()}

    @property
    def latest(self) -> Observation | None:
        """What was seen last; None when that is too long ago."""
        return None if self._observer is None else self._observer.latest

    def follow(self, observer: Observer) -> None:
        """This is who sees."""
        self._observer = observer

    def tell(self, seen: Observation) -> None:
        """Show it to all who watch."""
        self._lately.append(seen)
        self.feed.tell(seen)

    def smoothed(self) -> Observation | None:
        """The last one, with rates of the last half minute."""
        return None if self.latest is None else smoothed(self._lately)

    async def chart(self, span: str) -> bytes:
        """Columns of the time named in `SPANS`, as JSON. Raises StoreUnavailableError."""
        return await self._charts[span].json()

    async def aclose(self) -> None:
        """End what is watched; close the connections of its own."""
        self.feed.close()
        await self.standing.aclose()


LivePools = Mapping[str, LivePool]


class _Chart:
    """Reads the history once, for all who ask within `FRESH_S`; and with pauses, since it is a few
    megabytes and the router has streams to relay."""

    def __init__(self, board: Board, span: Span) -> None:
        self._board = board
        self._span = span
        self._made = b""
        self._until = 0.0
        self._making = asyncio.Lock()

    async def json(self) -> bytes:
        async with self._making:
            if time.monotonic() >= self._until:
                self._made = await self._make()
                self._until = time.monotonic() + FRESH_S
            return self._made

    async def _make(self) -> bytes:
        span = self._span
        since = int(time.time() * 1000) - span.ms  # the store's clock; a chart can begin a bit off
        step = max(1, span.step_ms)
        thin: list[Point] = []
        rest: list[Point] = []
        async for page in self._board.history_pages(max(0, since), coarse=span.coarse):
            rest += page
            done = [point for point in rest if point.at_ms // step != rest[-1].at_ms // step]
            thin += thinned(done, step)
            rest = rest[len(done) :]
            await asyncio.sleep(0)
        thin += thinned(rest, step)
        return orjson.dumps(columns(thin))
