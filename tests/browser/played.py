"""A whole router with its dashboard on a real store, under load, with played replicas.

Queue, observer, admin API and dashboard are the product's, on the HTTP server that Ray Serve runs
routers with. Replicas make tokens by the clock instead of an engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

import uvicorn

from fairness.observe.board import Board
from fairness.observe.observation import ReplicaFacts
from fairness.observe.observer import Observer
from fairness.observe.standing import Standing
from fairness.store.contract import Call, Grant, QueueSettings, Sender, Usage
from fairness.store.locate import LocatedQueue
from fairness.store.settings import StoreSettings
from router.admin.port import QuietServer
from router.app import Limits, RouterApp
from router.clients import Client, Clients, Configured, Group, hash_key
from router.dashboard.door import AdminDoor
from router.dashboard.me import Me
from router.directory.directory import Directory
from router.limits import QueueLimits
from router.live.pools import LivePool
from router.trunks import Trunks
from router.turns import Turns
from router.weights import Weights

ADMIN = "sk-admin"
POOL = "llama-8b"
SETTINGS = QueueSettings()
SECRET = b"s" * 32
ACME, ML, WEB, ZEN = Group("acme", 2.0), Group("acme/ml", 3.0), Group("acme/web"), Group("zen")


@dataclass
class Flood:
    """A client that keeps so many requests open, of so many tokens; key: sk-NAME."""

    client: Client
    connections: int
    prompt: int = 200
    answer: int = 60
    pause_s: float = 0.0


FLOODS = (
    Flood(Client("alice"), 60),
    Flood(Client("bob", 2.0), 24),
    Flood(Client("carol"), 3, pause_s=1.5),
    Flood(Client("search", 3.0, (ACME, ML)), 20, prompt=600, answer=30),
    Flood(Client("notebooks", 1.0, (ACME, ML)), 20, answer=120),
    Flood(Client("shop", 1.0, (ACME, WEB)), 12),
    Flood(Client("crawler", 0.5, (ZEN,)), 40, prompt=900, answer=20),
    Flood(Client("night-batch", 1.0, (ZEN,)), 16),
    Flood(Client("dora"), 1, pause_s=4),
)


class PlayedReplica:
    """Makes a token for each running request every step, and says what it charges."""

    def __init__(self, name: str, queue: LocatedQueue, board: Board, slots: int = 24) -> None:
        self.name = name
        self._queue = queue
        self._board = board
        self._slots = slots
        self._sender = Sender("replica", name)
        self._running: dict[str, tuple[int, int, int, asyncio.Event]] = {}
        self._seen = self._over = self._version = 0

    async def serve(self, grant: Grant, prompt: int, answer: int) -> None:
        """Until its answer is whole."""
        self._seen += 1
        done = asyncio.Event()
        self._running[grant.lease] = (prompt, 0, answer, done)
        await done.wait()

    async def live(self, step_s: float = 0.25, tokens: int = 12) -> None:
        for step in itertools.count():
            call = Call()
            for lease, (prompt, made, answer, done) in list(self._running.items()):
                now = min(answer, made + tokens)
                if now < answer:
                    self._running[lease] = (prompt, now, answer, done)
                    call.charge(lease, Usage(prompt, 0, now))
                else:
                    del self._running[lease]
                    self._over += 1
                    call.settle(lease, Usage(prompt, 0, answer))
                    done.set()
            self._version += 1
            limit = self._over + self._slots
            call.offer(f"tcp://{self.name}", limit, self._seen, self._version, 1024)
            if step % 4 == 0:
                call.heartbeat()
                use = sum(p + m for p, m, *_ in self._running.values()) / 24_000
                facts = ReplicaFacts(self._slots, 4, 1024, 24_000, min(1, use), step // 90)
                await self._board.tell_facts(self.name, facts)
            await self._queue.execute(self._sender, call)
            await asyncio.sleep(step_s)


@dataclass
class Played:
    """What runs. url: of the router."""

    url: str
    directory: Directory
    turns: Turns
    live: LivePool
    door: AdminDoor
    replicas: dict[str, PlayedReplica]
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def flood(self, floods: Iterable[Flood]) -> None:
        """Begin to ask."""
        for flood in floods:
            for n in range(flood.connections):
                self.tasks.append(asyncio.create_task(self._ask(flood, random.Random(n))))

    async def _ask(self, flood: Flood, dice: random.Random) -> None:
        await asyncio.sleep(dice.random())
        while True:
            turn = self.turns.submit(flood.client, 4 * flood.prompt)
            try:
                grant = await turn.grant
                self.turns.answered(turn)
                answer = max(1, round(flood.answer * dice.uniform(0.5, 1.5)))
                await self.replicas[grant.replica].serve(grant, flood.prompt, answer)
            finally:
                self.turns.leave(turn)
            await asyncio.sleep(flood.pause_s * dice.uniform(0.5, 1.5))


@contextlib.asynccontextmanager
async def played(
    store_url: str,
    floods: Iterable[Flood] = FLOODS,
    *,
    replicas: int = 3,
    interval_s: float = 2.0,
    port: int = 0,
    session_hours: float | None = 12,
) -> AsyncIterator[Played]:
    """Everything running; nobody asks yet."""
    async with contextlib.AsyncExitStack() as stack:
        source = StoreSettings(store_url, connect_timeout_s=10, call_timeout_s=20)
        clients = tuple(flood.client for flood in floods)
        groups = tuple({group.name: group for c in clients for group in c.groups}.values())
        keys = tuple((hash_key(f"sk-{client.name}"), client) for client in clients)
        directory = Directory.open(source, Configured(clients, groups, keys))
        directory.start()
        stack.push_async_callback(directory.stop)
        queue = await LocatedQueue.open(source, POOL, SETTINGS)
        turns = Turns("router-1", queue, QueueLimits(), SETTINGS)
        turns.start()
        stack.push_async_callback(turns.stop)
        board = Board.open(source, POOL, SETTINGS)
        live = LivePool(board, Standing.open(source, POOL, SETTINGS))
        stack.push_async_callback(live.aclose)
        observer = Observer(
            *("router-1", POOL, board, SETTINGS),
            weights=Weights(directory),
            on_seen=lambda seen, mine: live.tell(seen),
            interval_s=interval_s,
        )
        live.follow(observer)
        observer.start()
        stack.push_async_callback(observer.stop)
        trunks = Trunks(lambda: SECRET)
        stack.push_async_callback(trunks.close)
        pools = {POOL: live}
        door = AdminDoor(directory, {POOL: turns}, pools, lambda: SECRET, session_hours)
        door.configure([hash_key(ADMIN)])
        app = RouterApp(
            *("router-1", Clients(keys, directory), {POOL: turns}, trunks, lambda: SECRET),
            *(15.0, Limits(), door),
        )
        app.me = Me(app.identify, {POOL: turns}, pools, app.told_limits)
        config = uvicorn.Config(
            app, "127.0.0.1", port, lifespan="off", access_log=False, log_level="warning"
        )
        server = QuietServer(config)
        serving = asyncio.create_task(server.serve())
        made = {}
        for n in range(replicas):
            name = f"Replica:{POOL}#r{n}x{7 * n + 3}k"
            store = await LocatedQueue.open(source, POOL, SETTINGS)
            made[name] = PlayedReplica(name, store, Board.open(source, POOL, SETTINGS))
        stage = Played("", directory, turns, live, door, made)
        stage.tasks += [asyncio.create_task(replica.live()) for replica in made.values()]
        try:
            await until(lambda: server.started and (bool(turns.replicas) or not replicas))
            stage.url = "http://{}:{}".format(*server.servers[0].sockets[0].getsockname()[:2])
            yield stage
        finally:
            for task in stage.tasks:
                task.cancel()
            await asyncio.gather(*stage.tasks, return_exceptions=True)
            live.feed.close()
            server.should_exit = True
            await serving


async def until(condition: object, timeout_s: float = 60) -> None:
    """Return as soon as the condition holds. Raises TimeoutError."""
    deadline = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(0.05)
