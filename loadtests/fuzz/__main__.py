"""Fuzz the HTTP API: broken bodies, paths, headers and connections, and what must hold whatever
comes.

Without --url a router of its own is started in this process, with a Valkey and a played replica
(the router is fuzzed then, the engine is not). With --url it is the whole application there, on
this machine (`make serve`): HAProxy, all its routers, vLLM. Bars (exit status 1 if one is missed):

  answers     no 5xx by input (503 with Retry-After is none), every error OpenAI-shaped (what is not
              HTTP the HTTP server refuses in its own words), an answer or an end in two minutes
  secrets     no key, and no other client's name, in any answer; none, and no prompt, in any log
  serves      a sound request is served after every batch
  upstream    no header of a client, and no reserved field, reaches the replica (without --url)
  leaks       0: afterwards nothing waits or runs, no connection or task is left
  alive       the routers are the same ones, as many replicas are ready (with --url)

The cases follow from --seed and their number: `--first 123 --cases 1` does number 123 again. The
last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import resource
import sys
import time

from loadtests.fuzz.bodies import MODEL
from loadtests.fuzz.run import Find, Outcome, Target, fuzz
from loadtests.fuzz.running import Running, whole
from loadtests.fuzz.stage import ADMIN_KEY, KEY, OTHER, OTHER_KEY, stage


def main() -> int:
    """Run as told; the exit status."""
    parser = argparse.ArgumentParser(
        prog="make fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--url", help="of a running Fairlane, rather than a router of its own")
    parser.add_argument("--key", default="sk-local-alice", help="of a client there")
    parser.add_argument("--admin-key", default="sk-local-admin", help="of an admin there")
    parser.add_argument(
        "--models",
        default=MODEL,
        help="models and adapters there, with commas",
    )
    arguments = parser.parse_args()
    numbers = range(arguments.first, arguments.first + arguments.cases)
    if arguments.url is None:
        outcome, more = asyncio.run(_own(arguments.seed, numbers))
    else:
        try:
            models = tuple(arguments.models.split(","))
            running = Running(arguments.url, arguments.key, arguments.admin_key, models)
        except ValueError as error:
            parser.error(str(error))
        outcome, more = asyncio.run(whole(running, arguments.seed, numbers, _show)), {}
    for find in outcome.finds[:50]:
        print(json.dumps(dataclasses.asdict(find)))
    print(json.dumps(outcome.summary() | more))
    return bool(outcome.finds)


async def _own(seed: int, numbers: range) -> tuple[Outcome, dict[str, object]]:
    async with stage() as router:
        secrets = (KEY, OTHER_KEY, ADMIN_KEY)
        target = Target(router.address, KEY, ADMIN_KEY, secrets, (OTHER,))
        warm = await fuzz(
            target, seed, range(numbers.start, min(numbers.start + 200, numbers.stop))
        )
        before = _memory_mib()
        began = time.monotonic()
        outcome = await fuzz(target, seed, range(numbers.start + 200, numbers.stop), _show)
        outcome.cases.update(warm.cases)
        outcome.statuses.update(warm.statuses)
        outcome.finds = warm.finds + outcome.finds
        leaks = await router.leaks()
        problems = [*router.overheard.problems, *router.replica.problems]
        problems += [f"left: {leaks}"] if any(leaks.values()) else []
        outcome.finds += [Find(-1, "stage", problem, "") for problem in problems]
        return outcome, {
            "leaks": leaks,
            "served": router.replica.served,
            "log_lines": router.overheard.lines,
            "peak_mib": [round(before), round(_memory_mib())],
            "seconds": round(time.monotonic() - began),
        }


def _memory_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _show(outcome: Outcome) -> None:
    print(f"{outcome.cases.total():6} cases, {len(outcome.finds)} finds", flush=True)


if __name__ == "__main__":
    sys.exit(main())
