"""The replica: one vLLM engine, its own port, and its link to the global queue.

A Ray Serve deployment built on `ray.serve.llm`'s `LLMServer`: Ray places it, starts the engine
(tensor parallelism, model download) and restarts it. Requests do not come through Ray: the replica
serves vLLM's own OpenAI app on a port of its own, to routers that show a grant.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray import serve
from ray.serve.llm import LLMConfig
from ray.serve.llm.deployment import LLMServer
from ray.util import metrics

from fairness.log_lines import Format, show_lines
from fairness.observe.board import Board
from fairness.observe.observation import ReplicaFacts
from fairness.store.contract import QueueSettings, Sender
from fairness.store.locate import GrantKey, LocatedQueue, StoreSource
from replicas.autoscaling import Work
from replicas.brief_refusals import shorten
from replicas.engine import FairVLLMEngine
from replicas.facts import cache_tokens, keep_telling
from replicas.grant_check import GrantCheck, about_lease
from replicas.identity import bind_identity
from replicas.lease_book import LeaseBook
from replicas.metrics import ReplicaMetrics
from replicas.neighbours import Neighbour, Neighbours, NeighbourSettings
from replicas.queue_link import LinkSettings, QueueLink
from replicas.stand_in import Shares
from replicas.trunk_server import TrunkServer
from replicas.warm_up import warm_up

logger = logging.getLogger(__name__)

SETTLE_S = 2.0  # to settle streams that were cut because draining took too long


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """pool: the model's name. lookahead: requests kept waiting here to hide a round trip.

    drain_s: how long a leaving replica lets its streams go on. neighbours: pools that are told what
    clients receive here.
    """

    pool: str
    queue: QueueSettings
    lookahead: int = 4
    drain_s: float = 600.0
    link: LinkSettings = field(default_factory=LinkSettings)
    log_format: Format = "text"
    neighbours: tuple[NeighbourSettings, ...] = ()


class StepListener:
    """vLLM's stat logger interface, used to hear that an engine step is done, and what it ended."""

    def __init__(self, step_done: Callable[[], None], ended: Callable[[list[Any]], None]) -> None:
        """ended: told of the requests that a step has ended (vLLM's `FinishedRequestStats`)."""
        self._step_done = step_done
        self._ended = ended

    def record(
        self, scheduler_stats: Any = None, iteration_stats: Any = None, *_: Any, **__: Any
    ) -> None:
        """A step is done."""
        self._step_done()
        if iteration_stats is not None and iteration_stats.finished_requests:
            self._ended(iteration_stats.finished_requests)

    def log(self) -> None:
        """Nothing to log."""

    def log_engine_initialized(self) -> None:
        """Nothing to log."""

    def record_sleep_state(self, *_: Any, **__: Any) -> None:
        """Sleeping changes nothing here."""


class FairLLMServer(LLMServer):
    """`LLMServer` that serves its own port, to granted requests only, in VTC order."""

    async def __init__(  # type: ignore[misc]  # Ray Serve awaits constructors
        self, llm_config: LLMConfig, *, settings: ReplicaSettings, store: StoreSource
    ) -> None:
        show_lines(("replicas", "fairness"), settings.log_format, about_lease)
        await super().__init__(llm_config, engine_cls=FairVLLMEngine)
        self._settings = settings
        self._store = store
        engine_client = self.engine._engine_client
        self._slots = engine_client.vllm_config.scheduler_config.max_num_seqs
        self._book = LeaseBook(settings.lookahead, self._slots)
        longest = engine_client.model_config.max_model_len
        name = f"{serve.get_replica_context().replica_tag}-{secrets.token_hex(4)}"
        queue = await LocatedQueue.open(store, settings.pool, settings.queue)
        await warm_up(engine_client)
        bind_identity(engine_client)
        exported = ReplicaMetrics(metrics, settings.pool)
        engine_client.logger_manager.stat_loggers.append(
            StepListener(self._step_done, exported.ended)
        )

        key = await GrantKey.open(store)
        listener = socket.create_server((ray.util.get_node_ip_address(), 0), backlog=1024)
        host, port = listener.getsockname()[:2]
        self._link = QueueLink(
            Sender("replica", name),
            f"tcp://{host}:{port}",
            self._book,
            exchange=self._exchange,
            queue=queue,
            longest=longest,
            settings=settings.link,
            on_loss=key.share,
            on_lag=lambda lag: exported.show(self._link, lag),
        )
        self._neighbours = await self._meet_neighbours(name)
        shares = Shares(self._book, longest, asyncio.get_running_loop().time)
        app = await self.__serve_build_asgi_app__()
        shorten(app)
        door = GrantCheck(
            app,
            key=key.now,
            replica=name,
            leases=self._link,
            engine_works=lambda: not engine_client.errored,
            answer=shares.answer,
        )
        self._port = TrunkServer(door, door.admit)
        await self._port.listen(listener)
        cache = cache_tokens(engine_client.vllm_config)
        self._board = Board.open(store, settings.pool, settings.queue)
        self._telling = asyncio.create_task(
            keep_telling(
                self._board,
                name,
                lambda: ReplicaFacts(
                    self._slots,
                    settings.lookahead,
                    longest,
                    cache,
                    self._link.kv_usage,
                    self._link.preemptions,
                ),
            )
        )
        self._linking = asyncio.create_task(self._keep_linked())
        gc.collect()
        gc.freeze()  # what was loaded until now stays: the collector need not look at it again
        logger.info("replica %s serves %s on %s:%s", name, settings.pool, host, port)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell Serve's autoscaler of the work here and in the queue."""
        work = Work.of(
            waiting=self._link.pool_waiting,
            running=self._book.open_leases,
            slots=self._slots,
            kv_usage=self._link.kv_usage,
        )
        return work.stats()

    async def check_health(self) -> None:
        """Fail when the engine, the port or the link is gone; Serve then restarts the replica."""
        if self._linking.done():
            raise RuntimeError(f"the replica's link to the global queues ended: {self._linking}")
        if self._telling.done():
            raise RuntimeError(f"the replica tells nobody of itself any more: {self._telling}")
        if not self._port.serving:
            raise RuntimeError("the replica's port is closed")
        await super().check_health()

    async def __del__(self) -> None:
        """Drain: no more credits, let open streams finish, settle, then go."""
        if hasattr(self, "_linking"):
            await self._drain()
        await super().__del__()
        if getattr(self, "engine", None) is not None and self.engine._engine_client is not None:
            self.engine._engine_client.shutdown(timeout=0)  # nothing is left to finish
        logger.info("the replica is gone")

    async def _drain(self) -> None:
        logger.info("draining %s open requests", self._book.open_leases)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.drain_s):
                await self._link.drain()
        await self._port.close()  # cuts what is still open
        if self._book.busy:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SETTLE_S):
                    await self._link.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await self._neighbours.drain()
        self._linking.cancel()
        self._telling.cancel()
        await self._link.leave()
        await self._board.aclose()
        logger.info("drained")

    async def _meet_neighbours(self, name: str) -> Neighbours:
        settings, interval_s = self._settings, self._settings.link.charge_interval_s
        neighbours = [
            Neighbour(
                name,
                await LocatedQueue.open(self._store, neighbour.pool, settings.queue),
                neighbour,
                interval_s,
            )
            for neighbour in settings.neighbours
        ]
        return Neighbours(self._book, settings.queue.cost, neighbours, interval_s)

    async def _keep_linked(self) -> None:
        async with asyncio.TaskGroup() as links:
            links.create_task(self._link.run())
            links.create_task(self._neighbours.run())

    def _step_done(self) -> None:
        # Steps are heard before the link is made, and outside any lease.
        if hasattr(self, "_link"):
            self._link.step_done()

    async def _exchange(self, update: dict[str, Any]) -> dict[str, Any]:
        core = self.engine._engine_client.engine_core
        return await core.call_utility_async("fairlane_exchange", update)
