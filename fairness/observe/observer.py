"""One router's eyes on a pool. Of all routers one is elected to look; each reads what it saw.

The office is a key in the store that expires, renewed with each observation: when its holder dies,
another takes it over within `TTL_MS`. A look costs O(clients) in pages between which other work of
the router goes on: some 5 us of the router's time for each client that was ever heard of. So that
it never takes more than a twentieth of a core, the interval grows with them, beyond 20,000 clients
(`Observation.interval_ms` says how long it was).

Neither looking nor reading is on any request's way. While the store is away nothing is seen, and
`latest` is None soon.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

from fairness.observe.board import PUBLISH_MS, Board
from fairness.observe.comparison import Comparison, FairWindow, Look
from fairness.observe.history import Coarse, Point
from fairness.observe.observation import Observation
from fairness.store.breaker import BreakerOpenError
from fairness.store.contract import QueueSettings, StoreUnavailableError

logger = logging.getLogger(__name__)

INTERVAL_S = 2.0
TTL_MS = 8_000  # of the office, or four intervals if that is more
CLIENT_S = 0.0001  # an interval has so much time for each client
TOP = 20
RESIGN_S = 1.0  # for the last word to the store

Weights = Callable[[Sequence[str]], Awaitable[Mapping[str, float]]]


async def _no_weights(_: Sequence[str]) -> Mapping[str, float]:
    return {}


class Observer:
    """Call `start`, read `latest`, `stop` at the end."""

    def __init__(
        self,
        router: str,
        pool: str,
        board: Board,
        settings: QueueSettings,
        *,
        weights: Weights = _no_weights,
        top: int = TOP,
        on_seen: Callable[[Observation, bool], None] = lambda seen, mine: None,
        interval_s: float = INTERVAL_S,
    ) -> None:
        """weights: of clients, by name. top: clients that get rows. on_seen: told of each new
        observation once, and whether this router made it."""
        self.board = board
        self._router = router
        self._pool = pool
        self._settings = settings
        self._weights = weights
        self._top = top
        self._on_seen = on_seen
        self._interval_s = interval_s
        self._latest: tuple[Observation, float] | None = None
        self._before: Look | None = None  # None: not elected, or only just
        self._window = FairWindow()
        self._coarse = Coarse()
        self._every_s = interval_s  # from one look to the next, by the last
        self._task: asyncio.Task[None] | None = None

    @property
    def latest(self) -> Observation | None:
        """What was seen last; None before the first time and when nothing was seen for long."""
        if self._latest is None:
            return None
        seen, until = self._latest
        return seen if time.monotonic() < until else None

    @property
    def elected(self) -> bool:
        """Is this the router that looks?"""
        return self._before is not None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End, and let another be elected at once."""
        while self._task is not None and not self._task.done():
            self._task.cancel()
            # Again if need be, as with the router's link to the queue (turns.py).
            await asyncio.wait({self._task}, timeout=1)
        self._task = None
        with contextlib.suppress(TimeoutError, StoreUnavailableError):
            async with asyncio.timeout(RESIGN_S):
                await self.board.resign(self._router)
        await self.board.aclose()

    def check(self) -> None:
        """Raises RuntimeError when the loop has ended."""
        if self._task is not None and self._task.done():
            raise RuntimeError(f"nobody watches the pool here any more: {self._task}")

    async def _run(self) -> None:
        while True:
            pause_s = self._interval_s
            try:
                pause_s = await self._turn()
            except BreakerOpenError as error:
                self._resigned()
                pause_s = max(pause_s, error.retry_in_s)
            except StoreUnavailableError as error:
                self._resigned()
                logger.warning("the pool can't be observed: %s", error)
            except Exception:  # logged, and tried again: to watch must not end a router that serves
                self._resigned()
                logger.exception("the pool can't be observed")
            await asyncio.sleep(pause_s)

    async def _turn(self) -> float:
        """Look or read once; how long to wait until the next time, in seconds."""
        held, seen = await self.board.hold(self._router, self._ttl_ms())
        if not held:
            self._resigned()
            if seen is not None and (self._latest is None or seen.at_ms != self._latest[0].at_ms):
                self._note(seen, mine=False)
            return self._interval_s
        began = time.monotonic()
        seen = await self._look()
        took_s = time.monotonic() - began
        clients = 0 if self._before is None else len(self._before.totals)
        self._every_s = max(self._interval_s, CLIENT_S * clients)
        if seen is not None:
            await self._publish(seen)
        return max(self._every_s - took_s, took_s)

    def _ttl_ms(self) -> int:
        return max(TTL_MS, round(4000 * self._every_s))

    async def _look(self) -> Observation | None:
        """None for the first time: there is nothing to compare with."""
        summary = await self.board.summary()
        before = self._before
        comparison = Comparison(
            before or Look(summary.at_ms), summary.at_ms, self._window, self._top
        )
        groups = await self.board.groups()
        await self.board.clients(comparison)
        self._before = comparison.look
        if before is None:
            return None
        weights = await self._weights(comparison.backlogged)
        return comparison.observation(
            summary,
            groups,
            pool=self._pool,
            observer=self._router,
            settings=self._settings,
            weights=weights,
        )

    async def _publish(self, seen: Observation) -> None:
        point = Point.of(seen)
        if await self.board.publish(seen, point, self._coarse.add(point), self._ttl_ms()):
            self._note(seen, mine=True)
        else:
            self._resigned()

    def _note(self, seen: Observation, *, mine: bool) -> None:
        valid_s = max(PUBLISH_MS, 3 * seen.interval_ms) / 1000
        self._latest = (seen, time.monotonic() + valid_s)
        self._on_seen(seen, mine)

    def _resigned(self) -> None:
        """Forget what only the observer needs."""
        if self._before is not None:
            self._before, self._window, self._coarse = None, FairWindow(), Coarse()
