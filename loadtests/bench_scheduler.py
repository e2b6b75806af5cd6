"""What fairness inside the batch costs: `FairScheduler` beside the scheduler of vLLM it extends.

Both run in this process on the same requests, with a model that takes no time (`fake_engine`). What
is measured is the CPU time of the thread in the two calls that vLLM's engine makes each step,
`schedule()` and `update_from_output()`: between a step's two calls the GPU computes, and whatever
they take longer, every request of the batch waits longer.

The load: chats of 32 prompt tokens and 16 to 256 output tokens fill all slots, more of them wait,
and when one ends a new one is sent by a client drawn at random, so every table row holds
admissions too. The settings are vLLM's own defaults (asynchronous scheduling, prefix cache);
one row has the synchronous way that CPUs use, against the plain scheduler used there.

The last row is about requests that can't run yet: 1,000 whose grammar is still being compiled,
with a slot free, so that stock looks at each of them in each step. Fairlane's replicas hold only
a few waiting requests each (the rest are in the global queue); the row is for those who use the
scheduler alone.

**How they are compared.** The two take turns, a block of steps each; the number is the median over
pairs of blocks of ours divided by stock's next to it, so what the machine does meanwhile meets
both. Microseconds are medians of blocks, per step. The garbage collector rests meanwhile, as vLLM
freezes its heap too. Stock runs on a copy of vLLM's scheduler of its own (`own_copy_of_vllms`).

The bars: total at most 1.05 in every row of the table, blocked at most 1.2. The last line is JSON:
`schedule_ratio`, `update_ratio`, `total_ratio` (each the worst of the rows), `blocked_ratio`, and
`cases` with all numbers.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

PROMPT_TOKENS = 32
OUTPUT_TOKENS = (16, 256)
WARM_UP_STEPS = 40
BLOCK_STEPS = 10

_progress = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Case:
    """One row: how many requests run, wait and are blocked, and of how many clients."""

    running: int
    waiting: int
    clients: int
    blocked: int = 0
    run_ahead: bool = True

    @property
    def label(self) -> str:
        """What the table calls it."""
        if self.blocked:
            return "grammars not ready"
        return "asynchronous" if self.run_ahead else "synchronous"


CASES = (
    *(
        Case(running, waiting, clients)
        for running in (64, 256)
        for waiting in (1_000, 10_000)
        for clients in (100, 1_000)
    ),
    Case(64, 10_000, 1_000, run_ahead=False),
    Case(64, 0, 100, blocked=1_000),
)
QUICK = (Case(64, 1_000, 100), Case(64, 0, 100, blocked=1_000))


@dataclass(frozen=True, slots=True)
class Measured:
    """Microseconds of a step for stock and ours, and the ratios of ours to stock."""

    case: Case
    stock_us: float
    fair_us: float
    schedule_ratio: float
    update_ratio: float
    total_ratio: float


class Side:
    """One scheduler under load, with a stopwatch on each of its two calls."""

    def __init__(self, scheduler_cls: type, case: Case) -> None:
        """Fill the slots and the queues, and run past the first prompts."""
        from loadtests.fake_engine import FakeEngine

        room = 1 if case.blocked else 0
        self._engine = FakeEngine(
            scheduler_cls,
            slots=case.running + room,
            batch_tokens=8192,
            blocks=16 * (case.running + room),
            prefix_cache=True,
            run_ahead=case.run_ahead,
        )
        self._case = case
        self._random = random.Random(1)
        self._sent = 0
        self.schedule_ns = self.update_ns = 0
        self._time("schedule", "schedule_ns")
        self._time("update_from_output", "update_ns")
        waiting = [self._request() for _ in range(case.running + case.waiting)]
        # Not in the order they were made in, or first come would be next in memory as well: worth
        # 2% to stock, which no server has whose requests came over an hour.
        self._random.shuffle(waiting)
        for request in [self._request(ready=False) for _ in range(case.blocked)] + waiting:
            self._engine.queue(request)
        self.run(WARM_UP_STEPS)

    def run(self, steps: int) -> tuple[float, float]:
        """Step, replace what ends, report; return nanoseconds a step in the two calls."""
        engine = self._engine
        self.schedule_ns = self.update_ns = 0
        for _ in range(steps):
            ended = len(engine.finished)
            engine.step()
            for _ in range(len(engine.finished) - ended):
                self._engine.queue(self._request())
        if hasattr(engine.scheduler, "exchange"):
            engine.exchange()  # as a replica does, between steps
        return self.schedule_ns / steps, self.update_ns / steps

    def _request(self, *, ready: bool = True) -> Any:
        self._sent += 1
        return self._engine.request(
            f"client-{self._random.randrange(self._case.clients)}",
            lease=f"lease-{self._sent}",
            prompt=PROMPT_TOKENS,
            output=self._random.randint(*OUTPUT_TOKENS),
            ready=ready,
        )

    def _time(self, method: str, total: str) -> None:
        call: Callable[..., Any] = getattr(self._engine.scheduler, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.thread_time_ns()
            result = call(*args, **kwargs)
            setattr(self, total, getattr(self, total) + time.thread_time_ns() - start)
            return result

        setattr(self._engine.scheduler, method, timed)


def own_copy_of_vllms(scheduler: str) -> type:
    """Return vLLM's scheduler of this name, loaded a second time.

    `FairScheduler` inherits from the first. The interpreter fits the code of a method to the class
    that it mostly meets there (PEP 659); with two classes in turns on the same code it would fit
    neither, whoever comes second least of all (by 4%), which is so in no server.
    """
    modules = ("vllm.v1.core.sched.scheduler", "vllm.v1.core.sched.async_scheduler")
    first = {name: import_module(name) for name in modules}
    for name in modules:
        del sys.modules[name]
    try:
        kind: type = getattr(import_module(modules[1]), scheduler)  # it imports the other's name
    finally:
        sys.modules.update(first)
    return kind


def measure(case: Case, pairs: int) -> Measured:
    """Compare the two on one case."""
    from replicas.scheduler import FairScheduler

    stock = Side(own_copy_of_vllms("AsyncScheduler" if case.run_ahead else "Scheduler"), case)
    fair = Side(FairScheduler, case)
    gc.collect()
    gc.disable()
    try:
        blocks = []
        for number in range(pairs):
            if number % 2:
                ours, theirs = fair.run(BLOCK_STEPS), stock.run(BLOCK_STEPS)
            else:
                theirs, ours = stock.run(BLOCK_STEPS), fair.run(BLOCK_STEPS)
            blocks.append((theirs, ours))
    finally:
        gc.enable()
    return Measured(
        case=case,
        stock_us=statistics.median(sum(theirs) for theirs, _ in blocks) / 1e3,
        fair_us=statistics.median(sum(ours) for _, ours in blocks) / 1e3,
        schedule_ratio=statistics.median(ours[0] / theirs[0] for theirs, ours in blocks),
        update_ratio=statistics.median(ours[1] / theirs[1] for theirs, ours in blocks),
        total_ratio=statistics.median(sum(ours) / sum(theirs) for theirs, ours in blocks),
    )


def summary(measured: Sequence[Measured]) -> dict[str, Any]:
    """Return the worst ratios of the rows, the blocked one apart, and all numbers."""
    plain = [result for result in measured if not result.case.blocked]
    blocked = [result for result in measured if result.case.blocked]
    numbers: dict[str, Any] = {
        key: round(max(getattr(result, key) for result in plain), 3)
        for key in ("schedule_ratio", "update_ratio", "total_ratio")
    }
    numbers["blocked_ratio"] = round(max(result.total_ratio for result in blocked), 3)
    numbers["cases"] = [asdict(result) for result in measured]
    return numbers


def table(measured: Sequence[Measured]) -> Table:
    """Lay out all cases, one a row."""
    result = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title="FairScheduler beside vLLM's own: CPU time of a step",
        caption="medians of blocks taken in turns; ratios are ours over stock",
    )
    result.add_column("requests", no_wrap=True)
    headings = ("run", "wait", "clients", "stock", "ours", "schedule", "update", "total")
    for heading in headings:
        result.add_column(heading, justify="right", no_wrap=True, min_width=len(heading))
    for row in measured:
        result.add_row(
            row.case.label,
            f"{row.case.running}",
            f"{row.case.waiting + row.case.blocked:,}",
            f"{row.case.clients:,}",
            f"{row.stock_us:,.0f} us",
            f"{row.fair_us:,.0f} us",
            f"{row.schedule_ratio:.3f}",
            f"{row.update_ratio:.3f}",
            f"{row.total_ratio:.3f}",
        )
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench_scheduler",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--pairs", type=int, default=40, help="pairs of blocks (default 40)")
    parser.add_argument("--quick", action="store_true", help="two cases, a quarter of the pairs")
    options = parser.parse_args(arguments)
    if options.pairs < 4:
        parser.error("--pairs must be at least 4: a median of fewer says nothing")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # before vLLM is imported
    cases = QUICK if options.quick else CASES
    measured = []
    try:
        for number, case in enumerate(cases):
            _progress.print(f"case {number + 1} of {len(cases)}", style="dim")
            measured.append(measure(case, options.pairs // 4 if options.quick else options.pairs))
    except KeyboardInterrupt:
        _progress.print("interrupted")
        return 130
    Console().print(table(measured))
    print(json.dumps(summary(measured)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
