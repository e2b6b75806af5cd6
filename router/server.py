"""The router as a Ray Serve deployment: the ingress of the application."""

from __future__ import annotations

import gc
import logging
import secrets
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from ray import serve
from ray.util import metrics

from fairness.store.contract import QueueSettings
from fairness.store.locate import GrantKey, LocatedQueue, StoreSource
from router.admin.app import admin_api
from router.admin.guard import AdminKeys
from router.admin.port import AdminPort
from router.app import Limits, RouterApp
from router.clients import Clients, Configured
from router.directory.directory import Directory
from router.directory.store import audit_log
from router.stand_in import asking
from router.trunks import Trunks
from router.turns import QueueLimits, Turns


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """pools: names of the models served. clients: those of the configuration.

    build: names one build of the application, whose policy is to hold until an admin's next word.
    fail_closed: refuse requests while the store is away, rather than do without it.
    admin_port, admin_host: where the admin API listens; without a port it is under /admin.
    """

    pools: tuple[str, ...]
    policy: str
    build: str
    queue: QueueSettings
    clients: Configured
    admin_key_hashes: tuple[str, ...] = ()
    admin_host: str = "127.0.0.1"
    admin_port: int | None = None
    fail_closed: bool = False
    limits: Limits = field(default_factory=Limits)
    queue_limits: QueueLimits = field(default_factory=QueueLimits)


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
    """

    def __init__(self, settings: RouterSettings, store: StoreSource, *_replicas: Any) -> None:
        self._settings = settings
        self._store = store
        self._app: RouterApp | None = None
        self._directory: Directory | None = None
        self._admin_port: AdminPort | None = None

    async def __serve_build_asgi_app__(self) -> Callable[..., Awaitable[None]]:
        settings = self._settings
        name = f"{serve.get_replica_context().replica_tag}-{secrets.token_hex(4)}"
        key = await GrantKey.open(self._store)
        trunks = Trunks(key.now)
        turns = {}
        for pool in settings.pools:
            queue = await LocatedQueue.open(self._store, pool, settings.queue)
            turns[pool] = Turns(
                name,
                queue,
                settings.queue_limits,
                settings.queue,
                ask=None if settings.fail_closed else asking(trunks, key.now),
                on_loss=key.share,
                on_degraded=self._gauge(pool),
            )
        directory = self._directory = Directory.open(self._store, settings.clients)
        admin = admin_api(AdminKeys(settings.admin_key_hashes), directory, turns)
        if settings.admin_port is not None:
            self._admin_port = AdminPort(admin, settings.admin_host, settings.admin_port)
        app = RouterApp(
            name,
            Clients(settings.clients.keys, directory),
            turns,
            trunks,
            key.now,
            settings.queue.grant_ttl_ms / 1000,
            settings.limits,
            admin if settings.admin_port is None else None,
        )
        directory.start()
        for pool_turns in turns.values():
            pool_turns.set_policy(settings.policy, settings.build)
            pool_turns.start()
        self._app = app
        show_audit()
        gc.collect()
        gc.freeze()  # what was loaded until now stays: the collector need not look at it again

        async def serve_http(scope: Any, receive: Any, send: Any) -> None:
            await app(scope, receive, send)

        return serve_http

    @staticmethod
    def _gauge(pool: str) -> Callable[[bool], None]:
        """Shows on Ray's metrics port whether this router does without the store."""
        gauge = metrics.Gauge(
            "fairlane_degraded",
            "1 while this router keeps the queue of its own requests, without the store",
            tag_keys=("pool",),
        )
        gauge.set_default_tags({"pool": pool})
        gauge.set(0)
        return gauge.set

    async def check_health(self) -> None:
        """Fail when a loop of the router has ended; Serve then restarts it."""
        if self._directory is not None:
            self._directory.check()
        if self._admin_port is not None:
            self._admin_port.check()
        if self._app is not None:
            for turns in self._app.turns.values():
                turns.check()

    async def __del__(self) -> None:
        if self._admin_port is not None:
            await self._admin_port.stop()
        if self._directory is not None:
            await self._directory.stop()
        if self._app is not None:
            for turns in self._app.turns.values():
                await turns.stop()
            await self._app.trunks.close()
