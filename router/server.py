"""The router as a Ray Serve deployment: the ingress of the application."""

from __future__ import annotations

import asyncio
import gc
import logging
import secrets
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from ray import serve
from ray.util import metrics

from fairness.observe.board import Board
from fairness.observe.observation import Observation
from fairness.observe.observer import TOP, Observer
from fairness.observe.standing import Standing
from fairness.store.contract import QueueSettings
from fairness.store.locate import GrantKey, LocatedQueue, StoreSource
from router.admin.port import AdminPort
from router.app import Limits, RouterApp
from router.clients import Clients, Configured
from router.dashboard.door import AdminDoor
from router.dashboard.me import Me
from router.directory.directory import Directory
from router.directory.store import audit_log
from router.limits import QueueLimits
from router.live.pools import LivePool
from router.metrics import RouterMetrics
from router.pool_metrics import PoolMetrics
from router.stand_in import asking
from router.trunks import Trunks
from router.turns import Turns
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
    """pools: names of the models served.

    live: what Serve's `user_config` of the routers means; raises ValueError for an unsound one.
    build: names one build of the application, whose policy is to hold until an admin's next word.
    fail_closed: refuse requests while the store is away, rather than do without it.
    top_clients: that have metrics of their own.
    session_hours: how long one stays logged in to the dashboard; None: there is none.
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
    top_clients: int = TOP
    session_hours: float | None = 12


def show_audit() -> None:
    """Have the lines of the audit log written to the process's own standard error, a file of Ray's.
    (What Serve puts in place of it keeps lines in memory, up to a thousand.)"""
    if not audit_log.handlers:
        handler = logging.StreamHandler(sys.__stderr__)
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
        audit_log.addHandler(handler)
        audit_log.setLevel(logging.INFO)
        audit_log.propagate = False


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
        self._configured = False
        self._metrics: RouterMetrics | None = None
        self._flushing: asyncio.Task[None] | None = None

    async def __serve_build_asgi_app__(self) -> Callable[..., Awaitable[None]]:
        settings = self._settings
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
        directory = self._directory = Directory.open(self._store, live.clients)
        weights = Weights(directory)
        for pool in settings.pools:
            self._watch(pool, name, weights)
        admin = self._admin = AdminDoor(
            directory, turns, self._shown, key.now, settings.session_hours
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
        )
        self._app = app
        app.me = Me(app.identify, turns, self._shown, app.told_limits)
        self._apply(live, app, directory)
        directory.start()
        for pool_turns in turns.values():
            pool_turns.set_policy(settings.policy, settings.build)
            pool_turns.start()
        for observer in self._observers.values():
            observer.start()
        self._flushing = asyncio.create_task(self._keep_flushing(self._metrics))
        show_audit()
        gc.collect()
        gc.freeze()  # what was loaded until now stays: the collector need not look at it again

        async def serve_http(scope: Any, receive: Any, send: Any) -> None:
            await app(scope, receive, send)

        return serve_http

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
        try:
            live = self._settings.live(user_config or {})
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

    def _watch(self, pool: str, name: str, weights: Weights) -> None:
        """Have a pool observed, for metrics and for the dashboard."""
        settings = self._settings
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
            settings.queue,
            weights=weights,
            top=max(TOP, settings.top_clients),
            on_seen=on_seen,
        )
        shown.follow(observer)
        self._shown[pool] = shown

    @staticmethod
    async def _keep_flushing(counted: RouterMetrics) -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            counted.flush()

    async def check_health(self) -> None:
        """Fail when a loop of the router has ended; Serve then restarts it."""
        if self._directory is not None:
            self._directory.check()
        if self._admin_port is not None:
            self._admin_port.check()
        for observer in self._observers.values():
            observer.check()
        if self._flushing is not None and self._flushing.done():
            raise RuntimeError(f"metrics are not exported any more: {self._flushing}")
        if self._app is not None:
            for turns in self._app.turns.values():
                turns.check()

    async def __del__(self) -> None:
        for shown in self._shown.values():
            await shown.aclose()
        if self._admin_port is not None:
            await self._admin_port.stop()
        if self._flushing is not None:
            self._flushing.cancel()
        for observer in self._observers.values():
            await observer.stop()
        if self._directory is not None:
            await self._directory.stop()
        if self._app is not None:
            for turns in self._app.turns.values():
                await turns.stop()
            await self._app.trunks.close()
