"""Faults under load: kill, stall, cut off and empty each part of the real application in turn.

Two routers, two vLLM replicas on CPU and a Valkey that the harness owns; alice and bob want all
they can get throughout, carol asks one thing at a time. Ten seconds in, a part fails; the load goes
on for --seconds after the fault has ended. Bars (exit status 1 if one is missed):

  lost        0: every request ends with an answer or a clear error (an OpenAI-shaped body or event;
              for the death of a router a closed connection is allowed: "cut")
  leaks       0: 30 s after the load nothing waits or runs, no key of a request or lease is in the
              store, and every slot is on offer
  fair again  at most 30 s after the fault the gap between alice and bob stays under its bound, and
              each gets 40 to 60% of the two in every 5 s
  twice       0 tokens charged beyond what clients were told, and what broken-off streams may have
              made
  missing     what clients were told, or have seen of broken-off streams, and were not charged, in
              seconds of throughput: about one second where a store or replica died, else none

The last two hold for the counters of the queue and for /admin/usage, each by itself: the larger one
is shown.

The faults of whole nodes (cut-node, kill-node, kill-head) are played on three Ray nodes in
namespaces of this machine, which takes Linux, root and `ip`; without those they are left out.

One application serves all scenarios of its kind, one after the other; after a missed bar the next
scenario gets a new one. Takes two minutes a scenario, and one and a half an application. The last
line of the output is JSON. Logs, and what happened to each request, lie in .local/chaos.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path

import httpx
import redis
from rich.console import Console

from loadtests.chaos.application import Application, ApplicationFailedError
from loadtests.chaos.backing import SETTINGS, Backing, standing
from loadtests.chaos.machines import MachineFailedError, missing
from loadtests.chaos.node_scenarios import NODE_SCENARIOS
from loadtests.chaos.nodes import NodesApplication
from loadtests.chaos.scenarios import SCENARIOS, Scenario, Scene
from loadtests.chaos.stage import Pool, play
from loadtests.chaos.store_servers import ServerFailedError
from loadtests.chaos.verdict import Verdict, summary, table

LOGS = Path(".local/chaos")
ALL = (*SCENARIOS, *NODE_SCENARIOS)
SCENARIO_LIMIT_S = 240.0  # beyond the load's own time: deadlines of requests, leaks, recovery

_progress = Console(stderr=True)


class Harness:
    """Plays scenarios, each on an application of its setting that is whole."""

    def __init__(self, folder: Path, after_s: float) -> None:
        """folder: for stores and models, removed after; after_s: the load after a fault."""
        self._folder = folder
        self._after_s = after_s
        self._pool = Pool.of_config()
        self._started = 0

    def run(self, scenarios: Sequence[Scenario]) -> Generator[Verdict, None, None]:
        """Play all, those of one setting together."""
        for setting in SETTINGS:
            waiting = [scenario for scenario in scenarios if scenario.setting == setting]
            while waiting:
                yield from self._on_one_application(setting, waiting)

    def _on_one_application(
        self, setting: str, waiting: list[Scenario]
    ) -> Generator[Verdict, None, None]:
        """Play what is waiting until one misses a bar; that and those before are taken out."""
        self._started += 1
        name = f"{self._started}-{setting}"
        try:
            with contextlib.ExitStack() as stack:
                _say(f"starting the application ({name})")
                store = stack.enter_context(standing(setting, self._folder / name))
                app = self._application(name, store)
                stack.enter_context(app.running())
                while waiting:
                    verdict = self._play(waiting[0], Scene(app, store))
                    waiting.pop(0)
                    yield verdict
                    if not verdict.passed:
                        break
                _say("ending the application")
        except (ApplicationFailedError, MachineFailedError, ServerFailedError) as error:
            # It would not start for the others either.
            while waiting:
                yield Verdict(waiting.pop(0).name, (str(error),))

    def _application(self, name: str, store: Backing) -> Application:
        home = self._folder / "home"
        if store.control is not None:
            return NodesApplication(store.config, store.url, store.control, home, LOGS / name)
        return Application(store.config, store.url, home, LOGS / f"{name}.log")

    def _play(self, scenario: Scenario, scene: Scene) -> Verdict:
        _say(f"{scenario.name}: waiting until the application is whole")
        limit_s = self._after_s + scenario.fault_s + SCENARIO_LIMIT_S
        try:
            return asyncio.run(asyncio.wait_for(self._when_whole(scenario, scene), 2 * limit_s))
        except (
            httpx.HTTPError, redis.RedisError, ServerFailedError, MachineFailedError,
            ApplicationFailedError, TimeoutError,
        ) as error:  # fmt: skip
            return Verdict(scenario.name, (f"could not be played: {error!r}",))

    async def _when_whole(self, scenario: Scenario, scene: Scene) -> Verdict:
        pool = self._pool
        if not await scene.app.whole(routers=pool.routers, replicas=pool.replicas):
            return Verdict(scenario.name, ("the application did not become whole before it",))
        return await play(
            scenario,
            scene,
            pool,
            after_s=self._after_s,
            logs=LOGS,
            say=lambda text: _say(f"{scenario.name}: {text}"),
        )


def _say(text: str) -> None:
    _progress.print(text, style="dim", highlight=False)


def _tell(verdict: Verdict) -> None:
    if verdict.passed:
        _progress.print(f"{verdict.name}: ok", style="green", highlight=False)
    for missed in verdict.missed:
        _progress.print(f"{verdict.name}: {missed}", style="red", highlight=False, markup=False)
    for complaint, times in verdict.complaints.items():
        _progress.print(f"  {times} x {complaint}", style="dim", highlight=False, markup=False)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.chaos",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [scenario.name for scenario in ALL]
    parser.add_argument("--only", nargs="+", choices=names, metavar="NAME", help="scenarios")
    parser.add_argument("--list", action="store_true", help="name the scenarios and end")
    parser.add_argument(
        "--seconds",
        type=float,
        default=45.0,
        help="of load after a fault has ended (default 45; 41 at least, to judge the 30 s bar)",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Play the scenarios; return the exit status."""
    options = _parser().parse_args(arguments)
    if options.list:
        for scenario in ALL:
            print(f"{scenario.name:15} {scenario.what}")
        return 0
    chosen = [s for s in ALL if options.only is None or s.name in options.only]
    if options.only is None and (why := missing()):
        chosen = [s for s in chosen if s.setting != "nodes"]
        _say(f"without the faults of whole nodes: {why}")
    # Started in the background of a script, SIGINT is ignored, here and in what is started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    LOGS.mkdir(parents=True, exist_ok=True)
    verdicts: list[Verdict] = []
    status = 0
    try:
        with tempfile.TemporaryDirectory(prefix="fairlane-chaos-") as folder:
            playing = Harness(Path(folder), options.seconds).run(chosen)
            with contextlib.closing(playing):  # interrupted, it ends what it started
                for verdict in playing:
                    verdicts.append(verdict)
                    _tell(verdict)
    except KeyboardInterrupt:
        _progress.print("interrupted; everything started has been stopped")
        status = 130
    # As wide as the table is: a log has no terminal whose width would matter.
    Console(width=None if sys.stdout.isatty() else 140).print(table(verdicts))
    print(json.dumps(summary(verdicts)))
    return status or int(not all(verdict.passed for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
