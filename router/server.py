"""The router as a Ray Serve deployment: the ingress of the application."""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ray import serve
from ray.util import metrics

from fairness.log_lines import Format, show_lines
from fairness.observe.board import Board
from fairness.observe.observation import Observation
from fairness.observe.observer import TOP, Observer
from fairness.observe.standing import Standing
from fairness.store.contract import QueueSettings
from fairness.store.locate import GrantKey, LocatedQueue, StoreSource
from router.admin.port import AdminPort
from router.app import Limits, RouterApp, about_request
from router.clients import Clients, Configured
from router.dashboard.door import AdminDoor
from router.dashboard.me import Me
from router.directory.directory import Directory
from router.explain.shelf import Shelf
from router.explain.stories import Stories
from router.file_watch import changes
from router.front_door import draining
from router.leaving import leave_in_time
from router.limits import QueueLimits
from router.live.pools import LivePool
from router.metrics import RouterMetrics
from router.pool_metrics import PoolMetrics
from router.stand_in import asking
from router.trunks import Trunks
from router.turns import Turns
from router.watch import Watch, WatchSettings
from router.weights import Weights

logger = logging.getLogger(__name__)

FLUSH_S = 2.0  # Ray drops a gauge that was not set for ten


@dataclass(frozen=True, slots=True)
class LiveSettings:
    """What a running router takes up without a restart. clients: those of the configuration."""

    clients: Configured = field(default_factory=Configured)
    admin_key_hashes: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    queue_limits: QueueLimits = field(default_factory=QueueLimits)


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """pools: names of the models served. adapters: LoRA adapters -> the pool that has them.
    prices: of adapters, next to their pool's, of those that have others.

    live: what Serve's `user_config` of the routers means; raises ValueError for an unsound one.
    live_files: files that it reads, too; asked again when they change.
    build: names one build of the application, whose policy is to hold until an admin's next word.
    fail_closed: refuse requests while the store is away, rather than do without it.
    top_clients: that have metrics of their own.
    watch: who looks at requests. log_format: of all lines.
    session_hours: how long one stays logged in to the dashboard; None: there is none.
    drain_s: how long a leaving router lets its requests go on.
    admin_port, admin_host: where the admin API listens; without a port it is under /admin.
    """

    pools: tuple[str, ...]
    policy: str
    build: str
    queue: QueueSettings
    live: Callable[[dict[str, Any]], LiveSettings]
    admin_host: str = "127.0.0.1"
    admin_port: int | None = None
    fail_closed: bool = False
    drain_s: float = 600.0
    top_clients: int = TOP
    live_files: tuple[str, ...] = ()
    watch: WatchSettings = field(default_factory=WatchSettings)
    log_format: Format = "text"
    adapters: Mapping[str, str] = field(default_factory=dict)
    prices: Mapping[str, float] = field(default_factory=dict)
    session_hours: float | None = 12


LOGGERS = ("router", "fairness", "fairlane")  # the last: audit and access


@serve.ingress()
class Router:
    """Authenticates, queues, relays. Holds nothing that another router could not take over.

    The replicas are arguments only so that Serve deploys them with the application.

    Serve calls `__init__`, `__serve_build_asgi_app__`, then `reconfigure`, and sends requests only
    after that. When nothing but the `user_config` in its config file has changed, it calls
    `reconfigure` again, of one router after the other, and restarts none.
    """

    def __init__(self, settings: RouterSettings, store: StoreSource, *_replicas: Any) -> None:
        self._settings = settings
        self._store = store
        self._live: LiveSettings | None = None
        self._app: RouterApp | None = None
        self._admin: AdminDoor | None = None
        self._shown: dict[str, LivePool] = {}  # pool -> what the dashboard shows of it
        self._directory: Directory | None = None
        self._observers: dict[str, Observer] = {}  # pool -> what was seen of it
        self._admin_port: AdminPort | None = None
        self._shelf: Shelf | None = None
        self._tracing: Any = None  # router.tracing.Tracing
        self._configured = False
        self._metrics: RouterMetrics | None = None
        self._flushing: asyncio.Task[None] | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._user_config: dict[str, Any] = {}
        self._watching: asyncio.Task[None] | None = None

    async def __serve_build_asgi_app__(self) -> Callable[..., Awaitable[None]]:
        settings = self._settings
        show_lines(LOGGERS, settings.log_format, about_request)
        live = settings.live({})
        name = f"{serve.get_replica_context().replica_tag}-{secrets.token_hex(4)}"
        key = await GrantKey.open(self._store)
        trunks = Trunks(key.now)
        turns = {}
        for pool in settings.pools:
            queue = await LocatedQueue.open(self._store, pool, settings.queue)
            turns[pool] = Turns(
                name,
                queue,
                live.queue_limits,
                settings.queue,
                ask=None if settings.fail_closed else asking(trunks, key.now),
                on_loss=key.share,
            )
        watch = self._watch(name)
        directory = self._directory = Directory.open(self._store, live.clients)
        weights = Weights(directory)
        for pool in settings.pools:
            self._observe(pool, name, weights)
        admin = self._admin = AdminDoor(
            directory, turns, self._shown, key.now, settings.session_hours, shelf=self._shelf
        )
        if settings.admin_port is not None:
            self._admin_port = AdminPort(admin, settings.admin_host, settings.admin_port)
        self._metrics = RouterMetrics(metrics, turns)
        app = RouterApp(
            name,
            Clients(live.clients.keys, directory),
            turns,
            trunks,
            key.now,
            settings.queue.grant_ttl_ms / 1000,
            live.limits,
            admin if settings.admin_port is None else None,
            self._metrics,
            watch=watch,
            adapters=settings.adapters,
            prices=settings.prices,
        )
        self._app = app
        app.me = Me(app.identify, turns, self._shown, app.told_limits)
        self._apply(live, app, directory)
        directory.start()
        if self._shelf is not None:
            self._shelf.start()
        for pool_turns in turns.values():
            pool_turns.set_policy(settings.policy, settings.build)
            pool_turns.start()
        for observer in self._observers.values():
            observer.start()
        self._flushing = asyncio.create_task(self._keep_flushing(self._metrics))
        self._leaving = asyncio.create_task(
            leave_in_time(draining, settings.drain_s, begin=self._end_feeds, end=app.end)
        )
        gc.collect()
        gc.freeze()  # what was loaded until now stays: the collector need not look at it again

        async def serve_http(scope: Any, receive: Any, send: Any) -> None:
            await app(scope, receive, send)

        return serve_http

    def _watch(self, name: str) -> Watch | None:
        """Who looks at requests here; None for nobody."""
        settings, cost = self._settings.watch, self._settings.queue.cost
        stories = None
        if settings.keep:
            stories = Stories(settings.keep, settings.per_second, time.monotonic)
            self._shelf = Shelf(self._store, name, stories, cost)
        if settings.tracing is not None:
            from router.tracing import Tracing  # half a second to import

            self._tracing = Tracing(settings.tracing, name)
        if stories is None and self._tracing is None and not settings.access:
            return None
        return Watch(name, cost, stories=stories, tracing=self._tracing, access=settings.access)

    async def reconfigure(self, user_config: dict[str, Any] | None, rank: Any = None) -> None:
        """Take up what has changed: between two steps of the event loop, for the next request.

        rank: of no use here, but who has the parameter is also called when the `user_config` was
        taken out of the file (None), and so returns to what the arguments say.

        Raises ValueError for an unsound configuration when the router has only just started:
        Serve shows it, and the other routers go on. A router at work keeps what it has and says
        so, since Serve would end it, streams and all.
        """
        if self._app is None or self._directory is None or self._metrics is None:
            raise RuntimeError("Serve calls this after the router's application was built")
        self._user_config = user_config or {}
        if self._watching is None and self._settings.live_files:
            self._watching = asyncio.create_task(self._follow_files())
        self._take_up()

    async def _follow_files(self) -> None:
        async for _ in changes(self._settings.live_files):
            self._take_up()

    def _take_up(self) -> None:
        assert self._app is not None and self._directory is not None and self._metrics is not None
        try:
            live = self._settings.live(self._user_config)
        except ValueError as error:
            if not self._configured:
                raise
            logger.error("the new configuration is unsound; the one before stays: %s", error)
            self._metrics.configuration_refused = True
            return
        self._configured = True
        self._metrics.configuration_refused = False
        if live != self._live:
            self._apply(live, self._app, self._directory)

    def _apply(self, live: LiveSettings, app: RouterApp, directory: Directory) -> None:
        directory.configure(live.clients)
        app.clients = Clients(live.clients.keys, directory)
        app.limits = live.limits
        for turns in app.turns.values():
            turns.limits = live.queue_limits
        if self._admin is not None:
            self._admin.configure(live.admin_key_hashes)
        self._live = live

    def _observe(self, pool: str, name: str, weights: Weights) -> None:
        """Have a pool observed, for metrics and for the dashboard."""
        settings = self._settings
        dearest = max(settings.prices.get(name, 1.0) for name in self._models(pool))
        board = Board.open(self._store, pool, settings.queue)
        shown = LivePool(board, Standing.open(self._store, pool, settings.queue))
        exported = PoolMetrics(metrics, pool, settings.top_clients)

        def on_seen(seen: Observation, mine: bool) -> None:
            shown.tell(seen)
            if mine:
                exported.show(seen)

        observer = self._observers[pool] = Observer(
            name,
            pool,
            board,
            replace(settings.queue, cost=settings.queue.cost.times(dearest)),  # of the bound
            weights=weights,
            top=max(TOP, settings.top_clients),
            on_seen=on_seen,
        )
        shown.follow(observer)
        self._shown[pool] = shown

    def _models(self, pool: str) -> list[str]:
        """The pool's own and its adapters."""
        return [pool, *(name for name, of in self._settings.adapters.items() if of == pool)]

    def _end_feeds(self) -> None:
        """Browsers that watch ask another router."""
        for shown in self._shown.values():
            shown.feed.close()

    @staticmethod
    async def _keep_flushing(counted: RouterMetrics) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            counted.flush()

    async def check_health(self) -> None:
        """Fail when a loop of the router has ended; Serve then restarts it."""
        if self._watching is not None and self._watching.done():
            raise RuntimeError(
                f"the configuration's files are not watched any more: {self._watching}"
            )
        if self._directory is not None:
            self._directory.check()
        if self._shelf is not None:
            self._shelf.check()
        if self._admin_port is not None:
            self._admin_port.check()
        for observer in self._observers.values():
            observer.check()
        if self._leaving is not None and self._leaving.done():  # with an error: Serve asks no more
            raise RuntimeError(f"the router would not leave in time: {self._leaving}")
        if self._flushing is not None and self._flushing.done():
            raise RuntimeError(f"metrics are not exported any more: {self._flushing}")
        if self._app is not None:
            for turns in self._app.turns.values():
                turns.check()

    async def __del__(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        for shown in self._shown.values():
            await shown.aclose()
        if self._admin_port is not None:
            await self._admin_port.stop()
        for task in (self._flushing, self._leaving):
            if task is not None:
                task.cancel()
        for observer in self._observers.values():
            await observer.stop()
        if self._directory is not None:
            await self._directory.stop()
        if self._app is not None:
            for turns in self._app.turns.values():
                await turns.stop()
            await self._app.trunks.close()
        if self._shelf is not None:
            await self._shelf.stop()
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.shut_down)
