"""Two clients compete for one pool, with fair sharing (VTC) and without it (FCFS).

Alice floods: she keeps many more requests open than the engines can run at once, all the time.
Bob changes his habits halfway, because fairness promises two different things:

- *First half: bob asks now and then*, far less than his share. He should hardly notice alice:
  look at his time to first token.
- *Second half: bob wants all he can get*, but with a quarter of alice's connections. Both are
  backlogged, so both are owed the same: their lines of received service should rise alike.

The same minute is played under both policies. First come, first served hands out service in
proportion to the connections held, so there alice gets four times bob's.

For the picture to mean anything, alice must hold clearly more connections than the engines have
slots together, and bob in his second half more than half as many as they have.

``fairlane demo`` starts a server and calls `run_demo`. Against a server that runs already:
``python -m loadtests.demo --base-url URL [--admin-key KEY]``; without an admin key the policy is
left as it is and one panel is drawn.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from fairness.measures import Delivery, ServiceCurve, percentiles, service_over_time
from loadtests import driver
from loadtests.driver import Client, ClosedLoop, OpenLoop, Report, RequestRecord

OUT_DIR = Path(".local/demo")
POLICIES = ("vtc", "fcfs")
CLIENTS = ("alice", "bob")
AS_CONFIGURED = "as configured"
ADMIN_POLICY_PATH = "/admin/queue/policy"
WARM_UP_S = 3.0
BETWEEN_S = 2.0


@dataclass(frozen=True, slots=True)
class DemoLoad:
    """What alice and bob do. Prompts in bytes, answers in tokens, interval in seconds."""

    alice_key: str = "sk-local-alice"
    alice_connections: int = 128
    alice_prompt_bytes: int = 256
    bob_key: str = "sk-local-bob"
    bob_connections: int = 32
    bob_interval_s: float = 1.5
    bob_prompt_bytes: int = 64
    max_tokens: int = 96

    def clients(self, seconds: float) -> list[Client]:
        """Return the clients of a run of this length."""
        half = seconds / 2
        alice = Client(
            "alice",
            self.alice_key,
            ClosedLoop(self.alice_connections),
            prompt_bytes=self.alice_prompt_bytes,
            max_tokens=self.max_tokens,
        )
        polite = Client(
            "bob",
            self.bob_key,
            OpenLoop.every(self.bob_interval_s, half),
            prompt_bytes=self.bob_prompt_bytes,
            max_tokens=self.max_tokens,
        )
        greedy = Client(
            "bob",
            self.bob_key,
            ClosedLoop(self.bob_connections),
            prompt_bytes=self.alice_prompt_bytes,
            max_tokens=self.max_tokens,
            start_s=half,
        )
        return [alice, polite, greedy]


@dataclass(frozen=True, slots=True)
class HalfNumbers:
    """What one client received in one half. TTFT in seconds, None without a first token.

    Tokens count when they arrived, ``requests`` when they ended, TTFT by when it was asked.
    ``service_per_s`` leaves out the first tenth of the half, in which queues build up.
    """

    client: str
    requests: int
    refused: int
    input_tokens: float
    output_tokens: float
    service: float
    service_per_s: float
    ttft_p50: float | None
    ttft_p99: float | None


@dataclass(frozen=True, slots=True)
class PolicyRun:
    """One run under one policy: the curves to draw and the numbers to print.

    ``polite`` and ``greedy`` are the halves, alice first. ``bob_ttft`` holds (when asked, TTFT).
    """

    policy: str
    seconds: float
    curves: dict[str, ServiceCurve]
    bob_ttft: list[tuple[float, float]]
    polite: tuple[HalfNumbers, ...]
    greedy: tuple[HalfNumbers, ...]
    fell_behind: bool
    errors: dict[str, int]

    @property
    def alice_over_bob(self) -> float:
        """How many times bob's service alice received while both wanted all they could get."""
        alice, bob = self.greedy
        return alice.service_per_s / bob.service_per_s if bob.service_per_s > 0 else float("inf")


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo found and where it lies."""

    runs: tuple[PolicyRun, ...]
    figure: Path
    data: Path


def run_demo(
    base_url: str,
    admin_key: str | None,
    out_dir: Path = OUT_DIR,
    seconds: float = 60.0,
    set_policy: Callable[[str], None] | None = None,
    *,
    load: DemoLoad | None = None,
    console: Console | None = None,
    watch: Callable[[], RenderableType] = lambda: "",
) -> DemoResult:
    """Play the demo against a server at ``base_url``, ``seconds`` per policy; print and draw it.

    ``set_policy`` switches the whole server to the policy of this name and returns when it is
    done; by default that is asked of the admin API with ``admin_key``. With neither, the one
    policy in force is shown. ``watch`` draws the server as it is now, for below the bars; it is
    called several times a second, from another thread. Afterwards, also after an error or Ctrl-C,
    the policy is ``vtc``.

    Call it where no event loop runs. Raises aiohttp.ClientError when the server does not list its
    models, and whatever ``set_policy`` raises.
    """
    console = console or Console()
    load = load or DemoLoad()
    if set_policy is None and admin_key is not None:
        set_policy = policy_setter(base_url, admin_key)
    policies = (AS_CONFIGURED,) if set_policy is None else POLICIES
    with _bar(console, policies, seconds, watch) as advance, _restoring(set_policy):
        runs = tuple(
            _play(
                base_url,
                policy,
                load=load,
                seconds=seconds,
                set_policy=set_policy,
                advance=advance,
            )
            for policy in policies
        )
    out_dir.mkdir(parents=True, exist_ok=True)
    result = DemoResult(runs, out_dir / "demo.png", out_dir / "demo.json")
    _print(console, result)
    _save(result, load)
    console.print(f"picture: {result.figure}\nnumbers: {result.data}", highlight=False)
    return result


def policy_setter(admin_url: str, admin_key: str) -> Callable[[str], None]:
    """Return a function that asks the admin API for a policy. It raises urllib.error.URLError."""

    def set_policy(name: str) -> None:
        request = urllib.request.Request(
            admin_url.rstrip("/") + ADMIN_POLICY_PATH,
            method="PUT",
            data=json.dumps({"policy": name}).encode(),
            headers={"Authorization": f"Bearer {admin_key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30):
            pass

    return set_policy


@contextlib.contextmanager
def _restoring(set_policy: Callable[[str], None] | None) -> Iterator[None]:
    try:
        yield
    finally:
        if set_policy is not None:
            set_policy("vtc")


def _play(
    base_url: str,
    policy: str,
    *,
    load: DemoLoad,
    seconds: float,
    set_policy: Callable[[str], None] | None,
    advance: Callable[[str, driver.Progress], None],
) -> PolicyRun:
    if set_policy is not None:
        set_policy(policy)
    # Both policies meet warm processes, and nothing of the run before.
    warm_up = Client("alice", load.alice_key, ClosedLoop(8), max_tokens=load.max_tokens)
    asyncio.run(driver.run(base_url, [warm_up], WARM_UP_S))
    time.sleep(BETWEEN_S)
    report = asyncio.run(
        driver.run(
            base_url,
            load.clients(seconds),
            seconds,
            on_progress=lambda progress: advance(policy, progress),
        )
    )
    return examine(policy, report, seconds)


def examine(policy: str, report: Report, seconds: float) -> PolicyRun:
    """Compute a run's numbers from its report."""
    half = seconds / 2
    deliveries = report.deliveries()
    curves = service_over_time(deliveries, clients=CLIENTS)
    tokens = {name: [d for d in deliveries if d.client == name] for name in CLIENTS}

    def numbers(start: float, end: float) -> tuple[HalfNumbers, ...]:
        return tuple(
            _half(name, report.of(name), tokens[name], curves[name], (start, end))
            for name in CLIENTS
        )

    return PolicyRun(
        policy=policy,
        seconds=seconds,
        curves=curves,
        bob_ttft=[(r.scheduled, r.ttft) for r in report.of("bob") if r.ttft is not None],
        polite=numbers(0.0, half),
        greedy=numbers(half, seconds),
        fell_behind=report.fell_behind,
        errors=dict(report.errors().most_common(5)),
    )


def _half(
    client: str,
    requests: Sequence[RequestRecord],
    deliveries: Sequence[Delivery],
    curve: ServiceCurve,
    window: tuple[float, float],
) -> HalfNumbers:
    start, end = window
    received = [delivery for delivery in deliveries if start < delivery.time <= end]
    ended = [r for r in requests if r.ended is not None and start < r.ended <= end]
    asked = [r for r in requests if start <= r.scheduled < end]
    ttfts = [r.ttft for r in asked if r.ttft is not None]
    p50, p99 = percentiles(ttfts, (50, 99)) if ttfts else (None, None)
    return HalfNumbers(
        client=client,
        requests=sum(r.done for r in ended),
        refused=sum(r.refused for r in ended),
        input_tokens=sum(delivery.input_tokens for delivery in received),
        output_tokens=sum(delivery.output_tokens for delivery in received),
        service=curve.between(start, end),
        service_per_s=curve.rate(start + 0.1 * (end - start), end),
        ttft_p50=p50,
        ttft_p99=p99,
    )


@contextlib.contextmanager
def _bar(
    console: Console, policies: Sequence[str], seconds: float, watch: Callable[[], RenderableType]
) -> Iterator[Callable[[str, driver.Progress], None]]:
    """Show one progress bar per policy, and what `watch` draws; yield what moves the bars."""
    columns = (
        TextColumn("{task.description:>13}"),
        BarColumn(bar_width=30),
        TimeRemainingColumn(),
        TextColumn("{task.fields[state]}"),
    )
    progress = Progress(*columns, console=console)
    over = False  # then only the bars stay on the screen

    def shown() -> RenderableType:
        return Group(progress.get_renderable(), "" if over else watch())

    with Live(console=console, get_renderable=shown):
        tasks: dict[str, TaskID] = {
            policy: progress.add_task(policy, total=seconds, state="") for policy in policies
        }

        def advance(policy: str, now: driver.Progress) -> None:
            state = "  ".join(
                f"{name}: {now.open[name]} open, {now.done[name]} done" for name in CLIENTS
            )
            progress.update(tasks[policy], completed=now.elapsed_s, state=state)

        yield advance
        for task in tasks.values():
            progress.update(task, completed=seconds)
        over = True


def tables(runs: Sequence[PolicyRun]) -> Table:
    """Lay out the numbers: a section per policy and half, a row per client."""
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        caption="tokens received; service = input + 2 x output; TTFT = time to first token",
    )
    for heading in ("policy", "bob is", "client"):
        table.add_column(heading)
    for heading in ("requests", "input", "output", "service", "TTFT p50", "TTFT p99"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run in runs:
        for habit, half in (("polite", run.polite), ("greedy", run.greedy)):
            for numbers in half:
                first = numbers is half[0]
                table.add_row(
                    run.policy if first else "",
                    habit if first else "",
                    numbers.client,
                    f"{numbers.requests:,}",
                    thousands(numbers.input_tokens),
                    thousands(numbers.output_tokens),
                    thousands(numbers.service),
                    seconds_text(numbers.ttft_p50),
                    seconds_text(numbers.ttft_p99),
                )
            table.add_section()
    return table


def thousands(tokens: float) -> str:
    """Write a large number of tokens short."""
    return f"{tokens / 1000:,.1f}k"


def seconds_text(seconds: float | None) -> str:
    """Write a duration as people read it: milliseconds below a second."""
    if seconds is None:
        return "-"
    return f"{1000 * seconds:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def findings(runs: Sequence[PolicyRun]) -> list[str]:
    """Say in a sentence per policy what was seen."""
    said = []
    for run in runs:
        polite_ttft = seconds_text(run.polite[1].ttft_p50)
        said.append(
            f"{run.policy}: while polite, bob's first token took {polite_ttft} (median); "
            f"while both wanted all, alice received {run.alice_over_bob:.2f} times bob's service."
        )
        if run.fell_behind:
            said.append(
                f"{run.policy}: the load driver fell behind; its machine is too busy to trust TTFT."
            )
        said += [f"{run.policy}: {count} requests: {text}" for text, count in run.errors.items()]
    return said


def _print(console: Console, result: DemoResult) -> None:
    console.print(tables(result.runs))
    for sentence in findings(result.runs):
        console.print(sentence, highlight=False, markup=False)


def _save(result: DemoResult, load: DemoLoad) -> None:
    from loadtests.demo_figure import draw

    draw(result.runs, load, result.figure)
    result.data.write_text(json.dumps(_numbers(result.runs, load), indent=2) + "\n")


def _numbers(runs: Sequence[PolicyRun], load: DemoLoad) -> dict[str, Any]:
    settings = {key: value for key, value in asdict(load).items() if not key.endswith("_key")}
    return {
        "load": settings,
        "runs": {
            run.policy: {
                "seconds": run.seconds,
                # JSON has no infinity: null when bob received nothing.
                "alice_over_bob": run.alice_over_bob if math.isfinite(run.alice_over_bob) else None,
                "bob_polite": [asdict(numbers) for numbers in run.polite],
                "bob_greedy": [asdict(numbers) for numbers in run.greedy],
                "driver_fell_behind": run.fell_behind,
                "errors": run.errors,
            }
            for run in runs
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the demo against a server that runs already; return the exit status."""
    default = DemoLoad()
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    parser.add_argument("--admin-key", help="to switch policies; without, one policy is shown")
    parser.add_argument("--seconds", type=float, default=60.0, help="per policy (default 60)")
    parser.add_argument("--out", type=Path, default=OUT_DIR, help=f"default {OUT_DIR}")
    parser.add_argument("--alice-connections", type=int, default=default.alice_connections)
    parser.add_argument("--bob-connections", type=int, default=default.bob_connections)
    options = parser.parse_args(arguments)
    load = DemoLoad(
        alice_connections=options.alice_connections, bob_connections=options.bob_connections
    )
    try:
        run_demo(options.base_url, options.admin_key, options.out, options.seconds, load=load)
    except KeyboardInterrupt:
        Console(stderr=True).print("interrupted")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
