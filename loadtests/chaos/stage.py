"""Play one scenario: load, fault, the load's end, and then a look at what is left."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import redis

from deployments.local_cluster import load as load_config
from fairness.bounds import PoolLimits, paper_bound
from fairness.measures import service_over_time
from fairness.store.connection import SCHEMA
from loadtests import driver
from loadtests.chaos import leaks
from loadtests.chaos.application import Books
from loadtests.chaos.backing import LOCAL
from loadtests.chaos.charges import Audit, Tokens, audit
from loadtests.chaos.fair_again import Fair, seconds_to_fair
from loadtests.chaos.leaks import Leftovers
from loadtests.chaos.outcomes import CutsAllowed, refusals_in, tally
from loadtests.chaos.scenarios import Scenario, Scene
from loadtests.chaos.store_servers import ServerFailedError
from loadtests.chaos.verdict import Findings, Verdict, judge
from loadtests.driver import Client, ClosedLoop, Report

WARM_S = 10.0
DEADLINE_S = 90.0
LEAK_S = 30.0
# A router's death is noticed by its clients at once; HAProxy may need a moment.
CUT_S = 5.0
# The application takes this long to notice that its store is gone, and to say so.
NOTICE_S = 3.0
QUICK_S = 3.0
PROMPT_BYTES = 128
PROMPT_TOKENS = 160  # with the chat template; for the bound only
OUTPUT_TOKENS = (48, 64, 80, 96)
FLOOD = ("alice", "bob")
CONNECTIONS = 40

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Pool:
    """The pool of local.yaml that is loaded: its name, replicas, slots and lookahead of each."""

    name: str
    replicas: int
    routers: int
    slots: int
    lookahead: int
    bound: float

    @classmethod
    def of_config(cls) -> Pool:
        """Read it."""
        app = load_config(LOCAL).app
        pool = app.pools[0]
        slots = int(pool.llm["engine_kwargs"]["max_num_seqs"])
        replicas = int(pool.llm["deployment_config"]["num_replicas"])
        return cls(
            name=pool.model_id,
            replicas=replicas,
            routers=app.router.replicas,
            slots=slots,
            lookahead=pool.lookahead,
            bound=paper_bound(
                PoolLimits(
                    replicas=replicas,
                    longest_input=PROMPT_TOKENS,
                    longest_output=max(OUTPUT_TOKENS),
                    window=slots + pool.lookahead,
                    batch_tokens=slots * (PROMPT_TOKENS + max(OUTPUT_TOKENS)),
                    cost=app.cost.service_cost(),
                )
            ),
        )

    @property
    def prefix(self) -> str:
        """Of its keys in the store."""
        return f"{SCHEMA}:{{{self.name}}}:"


def usual_load(stop_s: float) -> list[Client]:
    """Alice and bob want all they can get, in equal ways; carol asks one thing at a time."""
    flood = [
        Client(
            name,
            f"sk-local-{name}",
            ClosedLoop(CONNECTIONS // len(OUTPUT_TOKENS)),
            prompt_bytes=PROMPT_BYTES,
            max_tokens=max_tokens,
            stop_s=stop_s,
            abort_after_s=DEADLINE_S,
        )
        for name in FLOOD
        for max_tokens in OUTPUT_TOKENS
    ]
    carol = Client(
        "carol",
        "sk-local-carol",
        ClosedLoop(1),
        prompt_bytes=PROMPT_BYTES,
        max_tokens=OUTPUT_TOKENS[0],
        stop_s=stop_s,
        abort_after_s=DEADLINE_S,
    )
    return [*flood, carol]


@dataclass(frozen=True, slots=True)
class Played:
    """A scenario as it went. ``fault`` and ``stop_s`` (when clients ask no more) in seconds of the
    run; ``before`` and ``after``: what the store had charged each client. ``healed``: all routers
    and replicas are back, where that was asked for."""

    report: Report
    fault: tuple[float, float]
    stop_s: float
    before: Books
    after: Books
    leftovers: Leftovers
    healed: bool = True


def write_records(report: Report, path: Path) -> None:
    """Write what happened to each request, one JSON object a line, for who looks for a cause."""
    chunks = ("chunk_times", "chunk_events")
    with path.open("w", encoding="utf-8") as lines:
        for record in report.records:
            fields = {
                item.name: getattr(record, item.name)
                for item in dataclasses.fields(record)
                if item.name not in chunks
            }
            fields |= {"ttft": record.ttft, "events": sum(record.chunk_events)}
            lines.write(json.dumps(fields) + "\n")


async def play(
    scenario: Scenario, scene: Scene, pool: Pool, *, after_s: float, logs: Path, say: Say
) -> Verdict:
    """Load the application, apply the fault, go on for ``after_s``, and judge.

    What happened to each request is written into a file of the scenario's name in ``logs``.

    Raises what the fault raises, and httpx.HTTPError when the application does not even tell its
    clients' state before the fault.
    """
    before = await scene.app.books()
    stop_s = WARM_S + scenario.fault_s + after_s
    loading = asyncio.create_task(
        driver.run(
            scene.app.url,
            usual_load(stop_s) + scenario.extra(WARM_S),
            stop_s + DEADLINE_S + 1,
            model=pool.name,
            allow_remote=scenario.setting == "nodes",  # namespaces of this machine
        )
    )
    try:
        await asyncio.sleep(WARM_S)
        say(f"{scenario.what} ...")
        began = time.time()
        await scenario.apply(scene)
        ended = time.time()
        say(f"over after {ended - began:.1f} s; the load goes on for {after_s:.0f} s")
        report = await loading
    finally:
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
    healed = True
    if scenario.heals:
        say("the load has ended; waiting until the application is whole")
        healed = await scene.app.whole(routers=pool.routers, replicas=pool.replicas)
    say("the load has ended; looking for what it left behind")
    leftovers = await _leftovers(scene, pool, time.monotonic() + LEAK_S)
    after = before
    with contextlib.suppress(httpx.HTTPError):  # then `leftovers` says that it is unknown
        after = await scene.app.books()
    write_records(report, logs / f"{scenario.name}.jsonl")
    zero = report.started_at
    fault = (began - zero, ended - zero)
    played = Played(report, fault, stop_s, before, after, leftovers, healed)
    return judge(scenario.name, findings(scenario, pool, played))


async def _leftovers(scene: Scene, pool: Pool, deadline: float) -> Leftovers:
    """Look until nothing is left, or the deadline has passed."""
    while True:
        try:
            left = Leftovers(
                clients=leaks.busy_clients(await scene.app.clients()),
                **await asyncio.to_thread(_in_store, scene, pool),
            )
        except (httpx.HTTPError, redis.RedisError, ServerFailedError) as error:
            left = Leftovers(unknown=f"nobody tells: {type(error).__name__}: {error}")
        if not left or time.monotonic() > deadline:
            return left
        await asyncio.sleep(0.5)


def _in_store(scene: Scene, pool: Pool) -> dict[str, Any]:
    prefix = pool.prefix
    with contextlib.closing(scene.store.server.client()) as client:
        keys = list(client.scan_iter(match=f"{prefix}*", count=1000))
        load = dict(client.zrange(f"{prefix}load", 0, -1, withscores=True))
        credits = {
            replica: -int(load.get(replica, 0))
            for replica in client.zrange(f"{prefix}replicas", 0, -1)
        }
    return {
        "keys": leaks.leaked_keys(keys, prefix),
        "slots": leaks.missing_slots(credits, pool.lookahead),
    }


def findings(scenario: Scenario, pool: Pool, played: Played) -> Findings:
    """Measure what a scenario showed. No I/O."""
    report, (start, end) = played.report, played.fault
    curves = service_over_time(report.deliveries(), clients=FLOOD)

    def held(before: dict[str, Tokens], after: dict[str, Tokens]) -> Audit:
        return audit(
            report.records,
            before,
            after,
            accounts=scenario.accounts,
            emptied_at=end if scenario.empties else None,
        )

    account = held(played.before.queue, played.after.queue)
    refusals = None
    if scenario.refuses:
        refusals = refusals_in(
            report.records, start + NOTICE_S, end - QUICK_S - 0.5, quick_s=QUICK_S
        )
    return Findings(
        outcomes=tally(
            report.records,
            leavers=set(scenario.accounts),
            cuts=CutsAllowed(start - 0.5, end + CUT_S) if scenario.cuts else None,
        ),
        leftovers=played.leftovers,
        fair_again_s=seconds_to_fair(
            curves[FLOOD[0]], curves[FLOOD[1]], end, played.stop_s, Fair(pool.bound)
        ),
        audit=account,
        usage=held(played.before.usage, played.after.usage),
        tokens_per_s=account.told / report.duration_s if report.duration_s > 0 else 0.0,
        may_forget=scenario.may_forget,
        answered_in_fault=_answered(report, start, end),
        answered_per_s=_answered(report, 0.0, start) / start,
        fault_s=end - start,
        refusals=refusals,
        goes_on=scenario.goes_on,
        healed=played.healed,
    )


def _answered(report: Report, start: float, end: float) -> int:
    return sum(
        record.done and record.ended is not None and start < record.ended <= end
        for record in report.records
    )
