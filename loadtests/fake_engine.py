"""A scheduler without an engine: the real class, a hand-made KV cache, made-up outputs.

A step of ``FakeEngine`` is what vLLM's ``EngineCore.step`` is, with a model that takes no time and
answers every request that has its whole prompt. Like a real model under greedy decoding it derives
the next token from those before it, so two schedulers can be held against each other token for
token. Nothing here depends on a clock: runs repeat exactly.
"""

import itertools
import json
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from vllm.config import (
    CacheConfig,
    DeviceConfig,
    LoRAConfig,
    ModelConfig,
    ParallelConfig,
    SchedulerConfig,
    SpeculativeConfig,
    VllmConfig,
)
from vllm.lora.request import LoRARequest
from vllm.model_executor.models.interfaces import SupportsLoRA
from vllm.model_executor.models.registry import ModelRegistry
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import DraftTokenIds, ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output import StructuredOutputManager

BLOCK = 32


class _NoModel(torch.nn.Module, SupportsLoRA):
    """What vLLM wants to know of a model before it loads one.

    A class that is registered is asked at once; for one of vLLM's own a process is started, which
    takes longer than most tests.
    """

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None: ...

    def embed_input_ids(self, input_ids: torch.Tensor) -> torch.Tensor: ...

    def forward(self, input_ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor: ...

    def compute_logits(self, hidden_states: torch.Tensor) -> torch.Tensor: ...


@cache
def _model_config() -> ModelConfig:
    """Read a Llama of no size, without weights or tokenizer."""
    ModelRegistry.register_model(_NoModel.__name__, _NoModel)
    config = {
        "architectures": [_NoModel.__name__],
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


def _ngram_drafts(tokens: int) -> SpeculativeConfig:
    return SpeculativeConfig(
        method="ngram",
        num_speculative_tokens=tokens,
        prompt_lookup_max=2,
        target_model_config=_model_config(),
        target_parallel_config=ParallelConfig(),
    )


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
        drafts: int = 0,
        accepted: int = 0,
        max_loras: int = 0,
        settings: dict[str, Any] | None = None,
        scheduling_policy: str = "fcfs",
    ) -> None:
        """Build the scheduler.

        Args:
            run_ahead: schedule a step before the last one's output is known (asynchronously).
            drafts: tokens drafted for each request in each step; the model accepts the first
                ``accepted`` of them. Not together with ``run_ahead``.
            max_loras: adapters that may share a batch; 0 switches LoRA off.
        """
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
            speculative_config=_ngram_drafts(drafts) if drafts else None,
            lora_config=LoRAConfig(max_loras=max_loras) if max_loras else None,
            additional_config={} if settings is None else {"fairlane": settings},
        )
        vllm_config.cache_config.num_gpu_blocks = blocks
        vllm_config.scheduler_config.async_scheduling = run_ahead  # vLLM switches it off on CPUs
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
        self._drafts = drafts
        self._accepted = accepted
        self._in_flight: SchedulerOutput | None = None
        self.steps = 0
        self.requests: dict[str, Request] = {}
        self._grammars: dict[str, _Grammar] = {}
        self.admitted: list[tuple[int, str]] = []
        self.finished: list[tuple[int, str]] = []
        self.texts: dict[str, list[int]] = {}  # what each request was answered

    def send(self, client: str | None, **details: Any) -> str:
        """Make a request and queue it; return its id. See ``request``."""
        request = self.request(client, **details)
        self.queue(request)
        return request.request_id

    def queue(self, request: Request) -> None:
        """Queue what ``request`` has made."""
        self.requests.setdefault(request.request_id, request)
        self.scheduler.add_request(request)

    def request(
        self,
        client: str | None,
        *,
        prompt: int | list[int] = 16,
        output: int = 8,
        lease: str | None = None,
        weight: float = 1.0,
        counter: float | None = None,
        groups: Sequence[tuple[str, float, float | None]] = (),
        pooling: bool = False,
        identity: Any = None,
        ready: bool = True,
        lora: int = 0,
        resumable: bool = False,
        session: str | None = None,
        priority: int = 0,
    ) -> Request:
        """Make a request; a prompt given as a length has tokens that no other has.

        One that is not ``ready`` waits for a grammar until ``make_ready``. One that is
        ``resumable`` opens a session: it waits for more input when it has answered. Made with
        the id of an open ``session`` it is that input, and the last of it if not ``resumable``.
        """
        number = next(self._ids)
        request_id = session or f"{client}-{number}"
        tokens = [number + 10] * prompt if isinstance(prompt, int) else prompt
        if client is not None:
            identity = {"client": client, "lease": lease, "weight": weight, "counter": counter}
            identity["groups"] = [list(group) for group in groups]
        extra = None if identity is None else {"fairlane": identity}
        request = Request(
            request_id=request_id,
            prompt_token_ids=list(tokens),
            sampling_params=None
            if pooling
            else SamplingParams(max_tokens=output, ignore_eos=True, extra_args=extra),
            pooling_params=PoolingParams(task="embed", extra_kwargs=extra) if pooling else None,
            arrival_time=float(number),
            lora_request=LoRARequest(f"adapter-{lora}", lora, "none") if lora else None,
            resumable=resumable,
            priority=priority,
            block_hasher=self._hasher,
        )
        if not ready:
            self._grammars[request_id] = _Grammar(request)
        return request

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
        answers = self.scheduler.update_from_output(output, self._model(output))
        for outputs in answers.values():
            for answer in outputs.outputs:
                self.texts.setdefault(answer.request_id, []).extend(answer.new_token_ids)
                if answer.finish_reason is not None:
                    self.finished.append((self.steps, answer.request_id))
        if self._drafts:
            running = [request.request_id for request in self.scheduler.running]
            tokens = [[1] * self._drafts for _ in running]
            self.scheduler.update_draft_token_ids(DraftTokenIds(running, tokens))

    def _model(self, output: SchedulerOutput) -> ModelRunnerOutput:
        """Answer each request whose last known token this step computed."""
        cached = output.scheduled_cached_reqs
        start = dict(zip(cached.req_ids, cached.num_computed_tokens, strict=True))
        start.update((new.req_id, new.num_computed_tokens) for new in output.scheduled_new_reqs)
        tokens: list[list[int]] = []
        pooled: list[torch.Tensor | None] = []
        for request_id, scheduled in output.num_scheduled_tokens.items():
            request = self.requests[request_id]
            whole = start[request_id] + scheduled >= request.num_tokens
            pools = request.pooling_params is not None
            drafts = output.scheduled_spec_decode_tokens.get(request_id, ())
            accepted = min(len(drafts), self._accepted) if drafts else 0
            tokens.append(_continue(request, 1 + accepted) if whole and not pools else [])
            pooled.append(torch.zeros(1) if whole and pools else None)
        return ModelRunnerOutput(
            req_ids=list(output.num_scheduled_tokens),
            req_id_to_index={name: i for i, name in enumerate(output.num_scheduled_tokens)},
            sampled_token_ids=tokens,
            logprobs=None,
            prompt_logprobs_dict={},
            pooler_output=pooled,
        )


def _continue(request: Request, length: int) -> list[int]:
    """Return the model's next tokens: each follows from the one before and its position."""
    tokens: list[int] = []
    last, position = request.all_token_ids[-1], request.num_tokens
    for _ in range(length):
        last = (31 * last + 7 * position) % 30_000 + 100
        tokens.append(last)
        position += 1
    return tokens
