"""Fairness inside the batch of a real engine: a noisy neighbour, under VTC and under vLLM's order.

`python -m loadtests.bench_engine` (or `make bench-engine`) starts one vLLM engine in this process
and runs the same load under vLLM's own scheduler and under `FairScheduler`, in turns: a client
floods the engine with requests, then two modest clients come with a small burst each. The KV cache
holds only a part of what the slots could use (`--memory`), so requests are preempted.

It prints service, waits and preemptions by client, throughput of VTC over that of first come,
first served (bar: 0.99), and what a step's scheduling costs: the CPU time of this thread in
`schedule()` and `update_from_output()`. All arrivals are tied to steps, so both schedulers get the
same work. Wall time and CPU time are shown side by side: where they disagree, the machine was busy
with something else. Throughput is shown for the whole run, whose end is the time in which the last
requests run with ever fewer beside them, and for the part of it in which somebody waits. The last
line is JSON; a picture goes to `--figure`.

The model is a shape: `tiny` (the tests' own, with its weights), or a Llama of 100 million, 1 or 8
billion parameters with dummy weights, made here, nothing downloaded. Or `--model` names a folder
or model of your own. The device is the one that the installed vLLM is built for. On a GPU this runs
with vLLM's defaults: asynchronous scheduling and CUDA graphs.

examples:
  python -m loadtests.bench_engine --quick              a look, on a CPU
  python -m loadtests.bench_engine                      the figures in docs/benchmarks.md
  python -m loadtests.bench_engine --shape 8b           on a GPU
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from loadtests.bench_engine import compare, figure, shapes
from loadtests.bench_engine.compare import FCFS, VTC, Pair
from loadtests.bench_engine.engine import BLOCK, ENVIRONMENT, SwitchedEngine
from loadtests.bench_engine.load import FLOOD, MODEST, NoisyNeighbour

TITLES = {FCFS: "First come, first served (vLLM's own)", VTC: "Fair sharing (VTC)"}
DEFAULT_FIGURE = Path(".local/bench-engine.png")

_progress = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Size:
    """How large a load keeps a device of this kind busy."""

    slots: int
    load: NoisyNeighbour


ON_CPU = Size(32, NoisyNeighbour(flood=96, burst=24, prompt=96, output=128))
ON_GPU = Size(256, NoisyNeighbour(flood=1024, burst=256, prompt=512, output=256))
QUICK = Size(16, NoisyNeighbour(flood=32, burst=8, prompt=64, output=48))


def blocks_for(size: Size, memory: float) -> int:
    """Return KV blocks for a share of what all slots could use, and never too few for one."""
    longest = -(-size.load.longest // BLOCK)
    typical = -(-(size.load.prompt + size.load.output) // BLOCK)
    return 1 + max(longest, round(memory * size.slots * typical))


def table(numbers: dict[str, Any]) -> Table:
    """Lay out both schedulers side by side."""
    result = Table(box=box.SIMPLE_HEAD, title="The same load, with two schedulers")
    result.add_column("")
    for name in (FCFS, VTC):
        result.add_column(name, justify="right", no_wrap=True)
    rows = {
        "tokens/s": [f"{numbers[f'{name}_tps']:,}" for name in (FCFS, VTC)],
        "steps": [f"{numbers[f'{name}_steps']:,.0f}" for name in (FCFS, VTC)],
        "steps while somebody waits": [
            f"{numbers[f'{name}_loaded_steps']:,.0f}" for name in (FCFS, VTC)
        ],
        "tokens computed": [f"{numbers[f'{name}_computed']:,.0f}" for name in (FCFS, VTC)],
        "scheduling, us a step": [f"{numbers[f'{name}_schedule_us']:,}" for name in (FCFS, VTC)],
        f"worst gap (2U is {numbers['bound_2u']:,.0f})": [
            f"{numbers[f'gap_{name}']:,.0f}" for name in (FCFS, VTC)
        ],
    }
    for client in (FLOOD, *MODEST):
        rows[f"{client} waits, steps"] = [
            f"{numbers[f'wait_steps_{name}'][client]:,.0f}" for name in (FCFS, VTC)
        ]
    for client in (FLOOD, *MODEST):
        rows[f"{client} preempted"] = [
            f"{numbers['preemptions_by_client'][name][client]:,.0f}" for name in (FCFS, VTC)
        ]
    for label, cells in rows.items():
        result.add_row(label, *cells)
    return result


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Start the engine, run all pairs, draw the picture; return the numbers."""
    model, load_format = (
        (Path(options.model), options.load_format or "auto")
        if options.model
        else shapes.model_folder(options.shape)
    )
    size = QUICK if options.quick else ON_CPU if is_for_cpu() else ON_GPU
    size = replace(size, load=replace(size.load, seed=options.seed))
    blocks = options.kv_blocks or blocks_for(size, options.memory)
    _progress.print("starting the engine", style="dim")
    engine = SwitchedEngine(
        model,
        options.load_format or load_format,
        slots=size.slots,
        blocks=blocks,
        max_model_len=size.load.longest,
    )
    results: list[Pair] = []
    try:
        for pair in compare.pairs(engine, size.load, options.pairs):
            results.append(pair)
            _progress.print(
                f"pair {len(results)} of {options.pairs}: "
                f"fcfs {pair.fcfs.wall_s:.1f} s ({pair.fcfs.cpu_s:.1f} s of CPU), "
                f"vtc {pair.vtc.wall_s:.1f} s ({pair.vtc.cpu_s:.1f} s of CPU)",
                style="dim",
            )
    finally:
        engine.close()
    figure.draw({TITLES[FCFS]: results[-1].fcfs, TITLES[VTC]: results[-1].vtc}, options.figure)
    return {
        "model": options.model or options.shape,
        "asynchronous": engine.asynchronous,
        "slots": size.slots,
        "kv_blocks": blocks,
    } | compare.summary(results, size.load, blocks)


def is_for_cpu() -> bool:
    """Whether the installed vLLM runs on a CPU."""
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench_engine",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--shape", choices=[shapes.TINY, *shapes.SHAPES], default=shapes.TINY)
    what.add_argument("--model", help="a model folder or name instead of a shape")
    parser.add_argument("--load-format", help="vLLM's, e.g. dummy (default: what the shape needs)")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each scheduler (default 5)")
    parser.add_argument(
        "--seed",
        type=int,
        default=2024,
        help="of the first pair's lengths; each next pair has the next",
    )
    parser.add_argument("--quick", action="store_true", help="a small load")
    parser.add_argument(
        "--memory", type=float, default=0.6, help="KV cache, of what the slots could use (0.6)"
    )
    parser.add_argument("--kv-blocks", type=int, help="KV cache in blocks of 32 tokens instead")
    parser.add_argument(
        "--figure", type=Path, default=DEFAULT_FIGURE, help="where the picture goes"
    )
    options = parser.parse_args(arguments)
    if options.pairs < 1 or options.memory <= 0:
        parser.error("--pairs must be at least 1, and --memory more than 0")
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        numbers = measure(options)
    except KeyboardInterrupt:
        _progress.print("interrupted")
        return 130
    Console().print(table(numbers))
    print(
        f"throughput of VTC over FCFS, by the clock and by CPU time: "
        f"{numbers['throughput_ratio']:.3f} and {numbers['throughput_ratio_cpu']:.3f} in all, "
        f"{numbers['loaded_ratio']:.3f} and {numbers['loaded_ratio_cpu']:.3f} while somebody "
        f"waits; picture: {options.figure}"
    )
    print(json.dumps(numbers))
    return 0


if __name__ == "__main__":
    sys.exit(main())
