"""The router as a Ray Serve deployment: the ingress of the application."""

from __future__ import annotations

import gc
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from ray import serve
from ray.util import metrics

from fairness.store.contract import QueueSettings
from fairness.store.locate import GrantKey, LocatedQueue, StoreSource
from router.app import Limits, RouterApp
from router.clients import Client, Clients
from router.stand_in import asking
from router.trunks import Trunks
from router.turns import QueueLimits, Turns


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """pools: names of the models served. keys: (hash of an API key, its client).

    build: names one build of the application, whose policy is to hold until an admin's next word.
    fail_closed: refuse requests while the store is away, rather than do without it.
    """

    pools: tuple[str, ...]
    policy: str
    build: str
    queue: QueueSettings
    keys: tuple[tuple[str, Client], ...]
    admin_key_hashes: tuple[str, ...] = ()
    fail_closed: bool = False
    limits: Limits = field(default_factory=Limits)
    queue_limits: QueueLimits = field(default_factory=QueueLimits)


@serve.ingress()
class Router:
    """Authenticates, queues, relays. Holds nothing that another router could not take over.

    The replicas are arguments only so that Serve deploys them with the application.
    """

    def __init__(self, settings: RouterSettings, store: StoreSource, *_replicas: Any) -> None:
        self._settings = settings
        self._store = store
        self._app: RouterApp | None = None

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
        app = RouterApp(
            name,
            Clients(settings.keys, settings.admin_key_hashes),
            turns,
            trunks,
            key.now,
            settings.queue.grant_ttl_ms / 1000,
            settings.limits,
        )
        for pool_turns in turns.values():
            pool_turns.set_policy(settings.policy, settings.build)
            pool_turns.start()
        self._app = app
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
        if self._app is not None:
            for turns in self._app.turns.values():
                turns.check()

    async def __del__(self) -> None:
        if self._app is not None:
            for turns in self._app.turns.values():
                await turns.stop()
            await self._app.trunks.close()
