"""A scheduler without an engine: the real class, a hand-made KV cache, made-up outputs.

A step of ``FakeEngine`` is what vLLM's ``EngineCore.step`` is, with a model that takes no time
and answers every request that has its whole prompt with one token. Nothing here depends on a
clock, so runs repeat exactly.
"""

import itertools
import json
import tempfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from vllm.config import (
    CacheConfig,
    DeviceConfig,
    ModelConfig,
    ParallelConfig,
    SchedulerConfig,
    VllmConfig,
)
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

BLOCK = 32
_TOKEN = 7


@cache
def _model_config() -> ModelConfig:
    """Read a Llama of no size, without weights or tokenizer."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "max_position_embeddings": 4096,
        "vocab_size": 32_000,
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        return ModelConfig(model=folder, skip_tokenizer_init=True, dtype="float32", seed=0)


class _Grammar:
    """What makes a request wait in vLLM's second queue, until ``ready``; then it is gone."""

    def __init__(self, request: Request) -> None:
        self.ready = False
        self._request = request
        request.structured_output_request = self
        request.status = RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR

    @property
    def grammar(self) -> object | None:
        if not self.ready:
            return None
        self._request.structured_output_request = None
        return object()


class FakeEngine:
    """Drives one scheduler; ``finished`` and ``admitted`` hold (step, request id)."""

    def __init__(
        self,
        scheduler_cls: type[Scheduler],
        *,
        slots: int = 8,
        batch_tokens: int = 2048,
        blocks: int = 10_000,
        prefix_cache: bool = False,
        run_ahead: bool = False,
        settings: dict[str, Any] | None = None,
        scheduling_policy: str = "fcfs",
    ) -> None:
        """Build the scheduler; ``run_ahead`` schedules a step before the last one's output."""
        vllm_config = VllmConfig(
            model_config=_model_config(),
            cache_config=CacheConfig(block_size=BLOCK, enable_prefix_caching=prefix_cache),
            scheduler_config=SchedulerConfig(
                max_num_seqs=slots,
                max_num_batched_tokens=batch_tokens,
                max_model_len=4096,
                enable_chunked_prefill=True,
                async_scheduling=run_ahead,
                policy=scheduling_policy,
                is_encoder_decoder=False,
            ),
            parallel_config=ParallelConfig(),
            device_config=DeviceConfig("cpu"),
            additional_config={} if settings is None else {"fairlane": settings},
        )
        vllm_config.cache_config.num_gpu_blocks = blocks
        layer = FullAttentionSpec(
            block_size=BLOCK, num_kv_heads=1, head_size=64, dtype=torch.float32
        )
        self.scheduler = scheduler_cls(
            vllm_config=vllm_config,
            kv_cache_config=KVCacheConfig(
                num_blocks=blocks,
                kv_cache_tensors=[],
                kv_cache_groups=[KVCacheGroupSpec(["layer"], layer)],
            ),
            structured_output_manager=StructuredOutputManager(vllm_config),
            block_size=BLOCK,
            log_stats=True,
        )
        init_none_hash(sha256)
        self._hasher = get_request_block_hasher(BLOCK, sha256) if prefix_cache else None
        self._ids = itertools.count()
        self._run_ahead = run_ahead
        self._in_flight: SchedulerOutput | None = None
        self.steps = 0
        self.requests: dict[str, Request] = {}
        self._grammars: dict[str, _Grammar] = {}
        self.admitted: list[tuple[int, str]] = []
        self.finished: list[tuple[int, str]] = []

    def send(
        self,
        client: str | None,
        *,
        prompt: int | list[int] = 16,
        output: int = 8,
        lease: str | None = None,
        weight: float = 1.0,
        counter: float | None = None,
        pooling: bool = False,
        identity: Any = None,
        ready: bool = True,
    ) -> str:
        """Queue a request; a prompt given as a length has tokens that no other has.

        One that is not ``ready`` waits for a grammar until ``make_ready``.
        """
        number = next(self._ids)
        request_id = f"{client}-{number}"
        tokens = [number + 10] * prompt if isinstance(prompt, int) else prompt
        if client is not None:
            identity = {"client": client, "lease": lease, "weight": weight, "counter": counter}
        extra = None if identity is None else {"fairlane": identity}
        request = Request(
            request_id=request_id,
            prompt_token_ids=list(tokens),
            sampling_params=None
            if pooling
            else SamplingParams(max_tokens=output, ignore_eos=True, extra_args=extra),
            pooling_params=PoolingParams(task="embed", extra_kwargs=extra) if pooling else None,
            arrival_time=float(number),
            block_hasher=self._hasher,
        )
        self.requests[request_id] = request
        if not ready:
            self._grammars[request_id] = _Grammar(request)
        self.scheduler.add_request(request)
        return request_id

    def make_ready(self, request_id: str) -> None:
        """Finish the grammar of a request."""
        self._grammars.pop(request_id).ready = True

    def abort(self, *request_ids: str) -> None:
        """Abort requests, as a disconnect does."""
        self.scheduler.finish_requests(request_ids, RequestStatus.FINISHED_ABORTED)

    def step(self) -> SchedulerOutput:
        """Schedule one batch and give the scheduler its output (or that of the one before)."""
        scheduled = self.scheduler.schedule()
        self.steps += 1
        self.admitted += [(self.steps, new.req_id) for new in scheduled.scheduled_new_reqs]
        answer: SchedulerOutput | None = scheduled
        if self._run_ahead:
            answer, self._in_flight = self._in_flight, scheduled
        if answer is not None:
            self._answer(answer)
        return scheduled

    def run(self, *, until: Iterable[str] = (), limit: int = 20_000) -> "FakeEngine":
        """Step until all requests have finished, or as soon as those of ``until`` have."""
        wanted = set(until)
        while self.scheduler.has_unfinished_requests():
            if wanted and wanted <= {request_id for _, request_id in self.finished}:
                return self
            assert self.steps < limit, "the scheduler makes no progress"
            self.step()
        if self._in_flight is not None:
            self._answer(self._in_flight)
            self._in_flight = None
        return self

    def admission_order(self) -> list[str]:
        """Return request ids in the order of their first admission."""
        return [request_id for _, request_id in self.admitted]

    def exchange(self, **update: Any) -> dict[str, Any]:
        """Call the scheduler's exchange."""
        return self.scheduler.exchange(update)

    def _answer(self, output: SchedulerOutput) -> None:
        ids = list(output.num_scheduled_tokens)
        ready = [self._has_whole_prompt(request_id, output) for request_id in ids]
        pools = [self.requests[request_id].pooling_params is not None for request_id in ids]
        kinds = list(zip(ready, pools, strict=True))
        answers = self.scheduler.update_from_output(
            output,
            ModelRunnerOutput(
                req_ids=ids,
                req_id_to_index={request_id: index for index, request_id in enumerate(ids)},
                sampled_token_ids=[[_TOKEN] if ok and not pool else [] for ok, pool in kinds],
                logprobs=None,
                prompt_logprobs_dict={},
                pooler_output=[torch.zeros(1) if ok and pool else None for ok, pool in kinds],
            ),
        )
        for outputs in answers.values():
            self.finished += [
                (self.steps, answer.request_id)
                for answer in outputs.outputs
                if answer.finish_reason is not None
            ]

    def _has_whole_prompt(self, request_id: str, output: SchedulerOutput) -> bool:
        """Whether this step computed up to the request's last known token."""
        for new in output.scheduled_new_reqs:
            if new.req_id == request_id:
                start = new.num_computed_tokens
                break
        else:
            cached = output.scheduled_cached_reqs
            start = cached.num_computed_tokens[cached.req_ids.index(request_id)]
        end = start + output.num_scheduled_tokens[request_id]
        return end >= self.requests[request_id].num_tokens
