"""Where the time goes: verb by verb in the server, function by function in the router.

The server: one sender makes calls of 20 verbs of one kind, one call at a time, on an otherwise
idle pool. `INFO commandstats` then says how long the script ran and which commands it made. What
the server's CPU exceeds the script by is reading the call, writing the reply and the append-only
file.

The router: as fast as it goes, watched from outside by py-spy (which hardly slows it), or where
that is not installed by cProfile within; shares of it are spread over the CPU that a request took
without being watched.
"""

from __future__ import annotations

import asyncio
import cProfile
import pstats
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairness.store.contract import Call, Grant, QueueSettings, Reply, Sender, Usage
from fairness.store.locate import LocatedQueue
from fairness.store.session import Session
from loadtests.bench_queue.servers import Server

CALLS = 100
VERBS = 20
CLIENTS = 1_000
NOT_OURS = ("evalsha", "eval", "info", "config|resetstat", "config", "ping", "auth", "select")
Stats = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one verb, in a call of many. Times in microseconds.

    cpu: of the server in all. script: of it, the script. commands: those that the script made,
    name -> (number, time).
    """

    what: str
    cpu: float
    script: float
    commands: Mapping[str, tuple[float, float]]

    @property
    def made(self) -> float:
        """Commands a verb."""
        return sum(number for number, _ in self.commands.values())

    @property
    def in_commands(self) -> float:
        """Time in commands, a verb."""
        return sum(time for _, time in self.commands.values())


def cost_of(what: str, verbs: int, cpu_s: float, stats: Stats) -> Cost:
    """The cost a verb, of `INFO commandstats` after a reset."""
    commands = {
        name.removeprefix("cmdstat_"): (use["calls"] / verbs, use["usec"] / verbs)
        for name, use in stats.items()
    }
    script = sum(commands.get(name, (0, 0))[1] for name in ("evalsha", "eval"))
    for name in NOT_OURS:
        commands.pop(name, None)
    return Cost(what, 1e6 * cpu_s / verbs, script, commands)


class VerbProfile:
    """Takes one server through the life of requests, one kind of verb at a time."""

    def __init__(self, server: Server, queue: LocatedQueue) -> None:
        self._server = server
        self._router = Session(queue, Sender("router", "profile-router"))
        self._replica = Session(queue, Sender("replica", "profile-replica"))
        self._heard = queue.granted("profile-router")
        self._requests = 0
        self._arrived = 0
        self._version = 0
        self._leases: list[str] = []
        self.costs: list[Cost] = []

    async def run(self) -> list[Cost]:
        """Measure every kind. The last two make one request's whole way with credits free."""
        await self._measure("a call without verbs", 1, lambda: self._router.execute(Call()))
        await self._measure("a heartbeat", 1, self._heartbeat)
        await self._measure("submit, no credit", VERBS, self._submit)
        listening = asyncio.ensure_future(self._listen(CALLS * VERBS))
        await asyncio.sleep(0.1)
        await self._measure("grant to one who waits", VERBS, lambda: self._offer(VERBS))
        await listening
        await self._measure("charge", VERBS, self._charge)
        await self._measure("settle", VERBS, self._settle)
        await self._offer(10 * CALLS * VERBS)
        await self._measure("submit, granted at once", VERBS, self._submit)
        await self._measure("settle and offer", VERBS, lambda: self._settle(offering=True))
        return self.costs

    async def _measure(self, what: str, verbs: int, call: Callable[[], Awaitable[object]]) -> None:
        self._server.redis.config_resetstat()
        cpu_s = self._server.cpu_s()
        for _ in range(CALLS):
            await call()
        cpu_s = self._server.cpu_s() - cpu_s
        stats = self._server.redis.info("commandstats")
        self.costs.append(cost_of(what, verbs * CALLS, cpu_s, stats))

    async def _listen(self, number: int) -> None:
        async for grants in self._heard:
            self._take(grants)
            if len(self._leases) >= number:
                return

    def _take(self, grants: Sequence[Grant]) -> None:
        self._leases += [grant.lease for grant in grants]

    async def _heartbeat(self) -> None:
        call = Call()
        call.heartbeat()
        await self._router.execute(call)

    async def _submit(self) -> None:
        call = Call()
        for _ in range(VERBS):
            self._requests += 1
            client = f"busy-{self._requests * 7919 % CLIENTS:07d}"
            call.submit(f"0123abcd-{self._requests}", client, 1.0, 800)
        reply: Reply = await self._router.execute(call)
        self._take(reply.grants)

    async def _offer(self, more: int) -> None:
        await self._replica.execute(self._offer_call(more))

    def _offer_call(self, more: int, call: Call | None = None) -> Call:
        call = Call() if call is None else call
        self._version += 1
        self._arrived += more
        call.offer("http://10.0.0.1:8000", self._arrived, 0, self._version, 4096)
        return call

    async def _charge(self) -> None:
        call = Call()
        for lease in self._leases[:VERBS]:
            call.charge(lease, Usage(200, 0, 50))
        self._leases = self._leases[VERBS:] + self._leases[:VERBS]
        await self._replica.execute(call)

    async def _settle(self, offering: bool = False) -> None:
        call = Call()
        for lease in self._leases[:VERBS]:
            call.settle(lease, Usage(200, 0, 100))
        self._leases = self._leases[VERBS:]
        await self._replica.execute(self._offer_call(VERBS, call) if offering else call)


async def verb_costs(server: Server) -> list[Cost]:
    """What each verb costs a server."""
    queue = await LocatedQueue.open(server.url, "profile", QueueSettings())
    try:
        return await VerbProfile(server, queue).run()
    finally:
        await queue.aclose()


def shares(folded: str) -> list[tuple[str, float, float]]:
    """Of py-spy's raw stacks (`outer;inner COUNT` a line): (function, its share itself, its share
    with all that it called), largest first."""
    own: Counter[str] = Counter()
    within: Counter[str] = Counter()
    total = 0
    for line in folded.splitlines():
        stack, _, text = line.rpartition(" ")
        frames = [frame.rpartition(":")[0] or frame for frame in stack.split(";")]
        count = int(text)
        total += count
        own[frames[-1]] += count
        for frame in set(frames):
            within[frame] += count
    return [(name, own[name] / total, count / total) for name, count in within.most_common()]


async def watch_myself(seconds: float) -> list[tuple[str, float, float]]:
    """The same shares of this very process, by cProfile, which slows it."""
    profiler = cProfile.Profile()
    profiler.enable()
    await asyncio.sleep(seconds)
    profiler.disable()
    stats: Mapping[Any, Any] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    total = sum(own for _, _, own, _, _ in stats.values()) or 1.0
    rows = [
        (f"{name} ({Path(file).name})", own / total, within / total)
        for (file, _, name), (_, _, own, within, _) in stats.items()
    ]
    return sorted(rows, key=lambda row: -row[2])


def watch(pid: int, seconds: int) -> list[tuple[str, float, float]] | None:
    """Watch a process with py-spy; None where that is not installed or not allowed."""
    beside = Path(sys.executable).with_name("py-spy")
    program = str(beside) if beside.exists() else shutil.which("py-spy")
    if program is None:
        return None
    with tempfile.NamedTemporaryFile() as file:
        command = [program, "record", "--pid", str(pid), "--duration", str(seconds)]
        command += ["--rate", "200", "--function", "--format", "raw", "--output", file.name]
        if subprocess.run(command, check=False, capture_output=True).returncode:
            return None
        return shares(Path(file.name).read_text(encoding="utf-8"))
