"""The faults, one function each, and what each may cost."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from loadtests.chaos.application import ENGINE, REPLICA, ROUTER, Application
from loadtests.chaos.backing import Backing
from loadtests.driver import Client, ClosedLoop

OUTAGE_S = 10.0
ROUTER_STALL_S = 15.0
VANISH_S = 4.0
VANISHING = "vanishing"
CAROL_KEY = "sk-local-carol"


@dataclass(frozen=True, slots=True)
class Scene:
    """Where a fault happens."""

    app: Application
    store: Backing


def nobody(start_s: float) -> list[Client]:
    """No clients beyond the usual ones."""
    return []


def vanishing(start_s: float) -> list[Client]:
    """200 connections that hang up: half after a moment, most still queued; half mid-stream."""
    queued, midway = (
        Client(
            VANISHING,
            CAROL_KEY,
            ClosedLoop(100, requests=100),
            prompt_bytes=128,
            max_tokens=96,
            start_s=start_s,
            abort_after_s=after_s,
            abort_after_events=after_events,
        )
        for after_s, after_events in ((VANISH_S / 2, None), (None, 5))
    )
    return [queued, midway]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fault. ``apply`` returns when the fault has ended, after ``fault_s`` or so.

    setting: which application it needs (`backing.SETTINGS`). cuts: connections may break (a router
    dies with those it had). may_forget: the last second of charges may be lost. empties: the store
    comes back without its data. refuses: what is asked meanwhile must get 503. goes_on: there must
    be answers meanwhile. heals: all routers and replicas must be back in the end. extra: clients
    who come with the fault.
    """

    name: str
    what: str
    apply: Callable[[Scene], Awaitable[None]]
    fault_s: float = 0.0
    setting: str = "single"
    cuts: bool = False
    may_forget: bool = False
    empties: bool = False
    refuses: bool = False
    goes_on: bool = False
    heals: bool = False
    extra: Callable[[float], list[Client]] = nobody
    accounts: dict[str, str] = field(default_factory=dict)


async def nothing(scene: Scene) -> None:
    """The control: what a load looks like when nothing fails."""


async def _kill_one(scene: Scene, name: str) -> None:
    scene.app.signal(await scene.app.oldest(name), signal.SIGKILL)


async def kill_router(scene: Scene) -> None:
    await _kill_one(scene, ROUTER)


async def kill_replica(scene: Scene) -> None:
    await _kill_one(scene, REPLICA)


async def kill_engine(scene: Scene) -> None:
    await _kill_one(scene, ENGINE)


async def stall_router(scene: Scene) -> None:
    stalled = await scene.app.oldest(ROUTER)
    scene.app.signal(stalled, signal.SIGSTOP)
    try:
        await asyncio.sleep(ROUTER_STALL_S)
    finally:
        scene.app.signal(stalled, signal.SIGCONT)


async def restart_store(scene: Scene) -> None:
    scene.store.server.kill()
    scene.store.server.start()
    await scene.store.server.ready()


async def empty_store(scene: Scene) -> None:
    scene.store.server.kill()
    scene.store.server.start(empty=True)
    await scene.store.server.ready()


async def stall_store(scene: Scene) -> None:
    scene.store.server.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(OUTAGE_S)
    finally:
        scene.store.server.signal(signal.SIGCONT)


async def hold_wire(scene: Scene) -> None:
    await _cut(scene, "hold")


async def reset_wire(scene: Scene) -> None:
    await _cut(scene, "reset")


async def _cut(scene: Scene, how: str) -> None:
    scene.store.wire.say(how)
    try:
        await asyncio.sleep(OUTAGE_S)
    finally:
        scene.store.wire.say("pass")


async def store_gone(scene: Scene) -> None:
    scene.store.server.kill()
    await asyncio.sleep(OUTAGE_S)
    scene.store.server.start()
    await scene.store.server.ready()


async def fail_over(scene: Scene) -> None:
    assert scene.store.sentinels is not None
    await scene.store.sentinels.fail_over()


async def vanish(scene: Scene) -> None:
    await asyncio.sleep(VANISH_S)


# Those after which the application has to start anew stand last.
SCENARIOS = (
    Scenario("calm", "nothing fails (the control)", nothing),
    Scenario("kill-router", "kill -9 a router", kill_router, cuts=True),
    Scenario("stall-router", "stop a router for 15 s", stall_router, fault_s=ROUTER_STALL_S),
    Scenario(
        "vanish",
        "200 clients hang up, queued and mid-stream",
        vanish,
        fault_s=VANISH_S,
        extra=vanishing,
        accounts={VANISHING: "carol"},
    ),
    Scenario(
        "restart-store", "kill -9 the store; back with its AOF", restart_store, 1.0, may_forget=True
    ),
    Scenario(
        "stall-store", "stop the store for 10 s", stall_store, fault_s=OUTAGE_S, may_forget=True
    ),
    Scenario(
        "cut-store",
        "drop all bytes to and from the store for 10 s",
        hold_wire,
        fault_s=OUTAGE_S,
        may_forget=True,
    ),
    Scenario(
        "reset-store",
        "break every connection to the store for 10 s",
        reset_wire,
        fault_s=OUTAGE_S,
        may_forget=True,
    ),
    Scenario(
        "empty-store",
        "kill -9 the store; back without its data",
        empty_store,
        1.0,
        may_forget=True,
        empties=True,
    ),
    Scenario("kill-replica", "kill -9 a replica", kill_replica, may_forget=True),
    Scenario("kill-engine", "kill -9 the engine of a replica", kill_engine, may_forget=True),
    Scenario(
        "fail-over",
        "kill -9 the primary under three Sentinels",
        fail_over,
        fault_s=8.0,
        setting="sentinel",
        may_forget=True,
    ),
    Scenario(
        "fail-closed",
        "fail_closed, and no store for 10 s",
        store_gone,
        fault_s=OUTAGE_S,
        setting="fail-closed",
        may_forget=True,
        refuses=True,
    ),
)
