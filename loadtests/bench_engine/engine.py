"""One real engine in this process, whose scheduler can be changed between runs.

Everything but the scheduler stays: the same model in the same memory, the same compiled kernels,
the same KV cache. Each run begins with a new scheduler, made with the arguments that the engine
gave its first one, and so with an empty cache. That makes two schedulers comparable run by run.
"""

from __future__ import annotations

import gc
import inspect
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairness.measures import Delivery
from loadtests.bench_engine.load import Arrival

# To be set before vLLM is imported. On a CPU the engine shares the cores with what else runs there.
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
BLOCK = 32  # tokens; the least that vLLM's CPU attention takes
TOKENS = range(32, 127)  # prompts are made of these: every vocabulary has them


@dataclass(slots=True)
class Run:
    """What one run of a load was: times in seconds, scheduling times in microseconds a step."""

    wall_s: float
    cpu_s: float
    steps: int
    tokens: int  # of all prompts and answers
    computed: int  # tokens scheduled: what was computed anew after preemptions counts again
    schedule_us: float
    update_us: float
    preemptions: Counter[str]
    deliveries: list[Delivery] = field(repr=False)
    waits: dict[str, list[int]] = field(repr=False)  # steps from arrival to first token
    backlog: dict[str, tuple[int, int]]  # first and last step at which a request of it waited
    answers: list[tuple[int, ...]] = field(repr=False)
    clocks: dict[int, tuple[float, float]] = field(repr=False)  # wall and CPU time after a step

    @property
    def loaded_steps(self) -> int:
        """The step of the last first token: until then somebody waited."""
        return max(end for _, end in self.backlog.values())

    def loaded_rate(self, clock: int) -> float:
        """Return tokens a second while somebody waited, by the clock (0) or by CPU time (1)."""
        last = self.loaded_steps
        tokens = sum(d.input_tokens + d.output_tokens for d in self.deliveries if d.time <= last)
        return tokens / self.clocks[last][clock]


class Stopwatch:
    """Adds up the CPU time that this thread spends in a method."""

    def __init__(
        self, owner: Any, method: str, on_result: Callable[[Any], None] = lambda _: None
    ) -> None:
        """Begin to measure ``owner.method``; ``on_result`` is told what it returns, unmeasured."""
        self.ns = 0
        self._on_result = on_result
        self._call: Callable[..., Any] = getattr(owner, method)
        setattr(owner, method, self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        start = time.thread_time_ns()
        result = self._call(*args, **kwargs)
        self.ns += time.thread_time_ns() - start
        self._on_result(result)
        return result


class SwitchedEngine:
    """A vLLM engine, stepped by hand, that runs loads under a scheduler of one's choice."""

    def __init__(
        self, model: Path, load_format: str, *, slots: int, blocks: int, max_model_len: int
    ) -> None:
        """Load the model and make the engine; ``blocks`` of 32 tokens is its KV cache."""
        from vllm import EngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.llm_engine import LLMEngine

        self.on_cpu = current_platform.is_cpu()
        config = EngineArgs(
            model=str(model),
            load_format=load_format,
            skip_tokenizer_init=True,
            enforce_eager=self.on_cpu,
            max_model_len=max_model_len,
            max_num_seqs=slots,
            block_size=BLOCK,
            num_gpu_blocks_override=blocks,
            disable_log_stats=True,
        ).create_engine_config()
        if self.on_cpu:
            # vLLM would start a process for its one worker, and both would spin.
            config.parallel_config.distributed_executor_backend = "uni"
        self._engine = LLMEngine.from_vllm_config(config, disable_log_stats=True)
        self._core = self._engine.engine_core.engine_core
        first = self._core.scheduler
        self.stock: type = type(first)
        self.asynchronous = bool(config.scheduler_config.async_scheduling)
        self._arguments = arguments_of(first)
        self._runs = 0

    def run(self, scheduler_cls: type, load: Sequence[Arrival]) -> Run:
        """Run the load from an empty engine to its last token."""
        scheduler = self._core.scheduler = scheduler_cls(**self._arguments)
        preemptions = _count_preemptions(scheduler)
        batches: list[int] = []
        schedule = Stopwatch(
            scheduler, "schedule", lambda batch: batches.append(batch.total_num_scheduled_tokens)
        )
        update = Stopwatch(scheduler, "update_from_output")
        self._runs += 1
        ids = [f"{self._runs}-{number}" for number in range(len(load))]
        prompts = _prompts(load)
        watcher = _Watcher(dict(zip(ids, load, strict=True)))
        coming = deque(range(len(load)))
        step = 0
        clocks: dict[int, tuple[float, float]] = {}
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        while coming or self._engine.has_unfinished_requests():
            if not self._engine.has_unfinished_requests():
                step = max(step, load[coming[0]].step)
            while coming and load[coming[0]].step <= step:
                number = coming.popleft()
                self._engine.add_request(
                    ids[number], prompts[number], _parameters(load[number], ids[number])
                )
            step += 1
            watcher.take(step, self._engine.step())
            clocks[step] = (time.perf_counter() - wall, time.process_time() - cpu)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        self._flush()
        return Run(
            wall_s=wall,
            cpu_s=cpu,
            steps=step,
            tokens=sum(arrival.prompt + arrival.output for arrival in load),
            computed=sum(batches),
            schedule_us=schedule.ns / 1e3 / step,
            update_us=update.ns / 1e3 / step,
            preemptions=preemptions,
            deliveries=watcher.deliveries,
            waits=watcher.waits(),
            backlog=watcher.backlog(),
            answers=[tuple(watcher.answers[name]) for name in ids],
            clocks=clocks,
        )

    def close(self) -> None:
        """Shut the engine down."""
        self._engine.engine_core.shutdown()

    def _flush(self) -> None:
        """Have the workers forget the last requests: they hear of an end in the next step."""
        while self._core.scheduler.has_requests() or self._core.batch_queue:
            self._engine.step()


class _Watcher:
    """Notes what the engine delivers, seen from outside: by step, for each request."""

    def __init__(self, load: dict[str, Arrival]) -> None:
        self._load = load
        self._first: dict[str, int] = {}
        self.answers: dict[str, list[int]] = {name: [] for name in load}
        self.deliveries: list[Delivery] = []

    def take(self, step: int, outputs: Sequence[Any]) -> None:
        for output in outputs:
            name = output.request_id
            tokens = output.outputs[0].token_ids
            arrival = self._load[name]
            new = name not in self._first
            if new:
                self._first[name] = step
            self.answers[name].extend(tokens)
            self.deliveries.append(
                Delivery(step, arrival.client, arrival.prompt if new else 0, len(tokens))
            )

    def waits(self) -> dict[str, list[int]]:
        waits: dict[str, list[int]] = {}
        for name, arrival in self._load.items():
            waits.setdefault(arrival.client, []).append(self._first[name] - arrival.step)
        return waits

    def backlog(self) -> dict[str, tuple[int, int]]:
        """From a client's first arrival to the first token of the last of its requests to start."""
        backlog: dict[str, tuple[int, int]] = {}
        for name, arrival in self._load.items():
            start, end = backlog.get(arrival.client, (arrival.step, 0))
            backlog[arrival.client] = (min(start, arrival.step), max(end, self._first[name]))
        return backlog


def arguments_of(scheduler: Any) -> dict[str, Any]:
    """Return the arguments a scheduler was made with: it keeps them under their names."""
    from vllm.v1.core.sched.scheduler import Scheduler

    names = inspect.signature(Scheduler.__init__).parameters
    return {name: getattr(scheduler, name) for name in names if hasattr(scheduler, name)}


def _count_preemptions(scheduler: Any) -> Counter[str]:
    counts: Counter[str] = Counter()
    preempt = scheduler._preempt_request

    def counted(request: Any, *args: Any, **kwargs: Any) -> Any:
        counts[request.sampling_params.extra_args["fairlane"]["client"]] += 1
        return preempt(request, *args, **kwargs)

    scheduler._preempt_request = counted
    return counts


def _prompts(load: Sequence[Arrival]) -> list[dict[str, list[int]]]:
    rng = random.Random(1)
    return [{"prompt_token_ids": rng.choices(TOKENS, k=arrival.prompt)} for arrival in load]


def _parameters(arrival: Arrival, lease: str) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=0.0,
        max_tokens=arrival.output,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        extra_args={"fairlane": {"client": arrival.client, "lease": lease}},
    )
