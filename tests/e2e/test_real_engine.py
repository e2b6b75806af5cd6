"""One real vLLM engine in this process, under its own scheduler and under the fair one.

The scheduler is changed between requests (as `loadtests.bench_engine` does), so one start of the
engine serves all: what vLLM answers with its own scheduler is what it must answer with ours.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from typing import Any

import pytest

from deployments.tiny_model import ensure_tiny_model
from loadtests.bench_engine.engine import ENVIRONMENT, arguments_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

BLOCK = 32
BLOCKS = 40
SLOTS = 8
RUNS_OUT_AT = BLOCKS // SLOTS * BLOCK  # tokens of each request, when all slots are taken
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "kind": {"enum": ["a", "b"]}},
    "required": ["ok", "kind"],
    "additionalProperties": False,
}


def offline_engine(**settings: Any) -> Any:
    """Start vLLM's offline engine with the tiny model, all of it in this process."""
    from vllm import LLM, EngineArgs

    make = EngineArgs.create_engine_config

    def in_one_process(self: Any, *args: Any, **kwargs: Any) -> Any:
        config = make(self, *args, **kwargs)
        config.parallel_config.distributed_executor_backend = "uni"
        return config

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(EngineArgs, "create_engine_config", in_one_process)
        return LLM(
            model=str(ensure_tiny_model()),
            dtype="float32",
            enforce_eager=True,
            max_model_len=1024,
            max_num_seqs=SLOTS,
            block_size=BLOCK,
            num_gpu_blocks_override=BLOCKS,
            **settings,
        )


class Engine:
    """The offline engine, with a choice of schedulers."""

    def __init__(self, llm: Any) -> None:
        self.llm = llm
        self.core = llm.llm_engine.engine_core.engine_core
        self.stock = type(self.core.scheduler)
        self._arguments = arguments_of(self.core.scheduler)

    def under(self, scheduler_cls: type) -> Any:
        """Go on with a new scheduler, and an empty KV cache; return the scheduler."""
        while self.core.scheduler.has_requests():  # the workers have yet to hear of an end
            self.llm.llm_engine.step()
        self.core.scheduler = scheduler_cls(**self._arguments)
        return self.core.scheduler

    def both(self) -> Iterator[Any]:
        """Go on with stock's scheduler, then with ours."""
        from replicas.scheduler import FairScheduler

        for kind in (self.stock, FairScheduler):
            yield self.under(kind)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        engine = Engine(offline_engine())
        yield engine
        engine.llm.llm_engine.engine_core.shutdown()


def sampling(client: str, tokens: int, **more: Any) -> Any:
    """Greedy, unless a temperature is given."""
    from vllm import SamplingParams

    identity = {"fairlane": {"client": client, "lease": client}}
    return SamplingParams(
        **{"temperature": 0.0, "max_tokens": tokens, "extra_args": identity} | more
    )


def texts(outputs: list[Any]) -> list[list[str]]:
    return [[answer.text for answer in output.outputs] for output in outputs]


def leases(scheduler: Any) -> dict[str, list[int]]:
    return {lease: counts for lease, *counts in scheduler.exchange({})["leases"]}


def count_preemptions(scheduler: Any) -> list[str]:
    """Return a list that grows by a name at every preemption."""
    names: list[str] = []
    preempt = scheduler._preempt_request

    def noted(request: Any, *args: Any, **kwargs: Any) -> None:
        names.append(request.request_id)
        preempt(request, *args, **kwargs)

    scheduler._preempt_request = noted
    return names


@pytest.mark.parametrize("scarce", [False, True])
def test_greedy_answers_are_stocks_token_for_token(engine, scarce):
    """With ample memory, and with so little that requests are preempted and computed anew."""
    rng = random.Random(5)
    tokens = 2 * RUNS_OUT_AT if scarce else RUNS_OUT_AT // 4
    prompts = ["".join(rng.choices("abcdefgh ", k=rng.randint(8, tokens // 2))) for _ in range(16)]
    parameters = [sampling(rng.choice("xyz"), rng.randint(tokens // 4, tokens)) for _ in prompts]
    answers = []
    for scheduler in engine.both():
        preempted = count_preemptions(scheduler)
        outputs = engine.llm.generate(prompts, parameters, use_tqdm=False)
        answers.append([list(output.outputs[0].token_ids) for output in outputs])
        assert bool(preempted) == scarce
    assert answers[0] == answers[1]
    assert [len(answer) for answer in answers[0]] == [p.max_tokens for p in parameters]


def test_structured_answers(engine):
    """A grammar is compiled aside while its request waits; then the answer follows it."""
    pytest.importorskip("xgrammar", reason="vLLM's default backend for structured output is absent")
    from vllm.sampling_params import StructuredOutputsParams

    wanted = {
        "json": StructuredOutputsParams(json=SCHEMA, disable_any_whitespace=True),
        "regex": StructuredOutputsParams(regex=r"[0-9]{3}-[a-c]{2}"),
        "choice": StructuredOutputsParams(choice=["yes", "no"]),
    }
    parameters = [
        sampling(client, 60, structured_outputs=form) for client, form in wanted.items()
    ] + [sampling("plain", 10)]
    answers = []
    for _ in engine.both():
        outputs = engine.llm.generate(["A prompt."] * 4, parameters, use_tqdm=False)
        answers.append(texts(outputs))
    assert answers[0] == answers[1]
    (as_json,), (as_regex,), (as_choice,), (plain,) = answers[1]
    assert set(json.loads(as_json)) == {"ok", "kind"}
    assert re.fullmatch(r"[0-9]{3}-[a-c]{2}", as_regex)
    assert as_choice in ("yes", "no")
    assert len(plain) == 10
    used = leases(engine.core.scheduler)
    assert set(used) == {*wanted, "plain"}
    assert all(waiting == running == 0 for waiting, running, *_ in used.values())


def test_several_answers_to_one_prompt_are_one_lease(engine):
    answers = []
    for _ in engine.both():
        outputs = engine.llm.generate(
            ["Three of these."], sampling("a", 12, n=3, temperature=1.0, seed=7), use_tqdm=False
        )
        answers.append(texts(outputs))
    assert answers[0] == answers[1]
    assert len(answers[1][0]) == 3
    waiting, running, prompt, cached, output = leases(engine.core.scheduler)["a"]
    assert (waiting, running, output) == (0, 0, 3 * 12)
    assert prompt == 3 * len("Three of these.")
    assert cached < prompt


def test_beam_search(engine):
    """It comes as many requests of one token, without identity: they are nobody's."""
    from vllm.sampling_params import BeamSearchParams

    beams = BeamSearchParams(beam_width=3, max_tokens=6, ignore_eos=True)
    answers = []
    for _ in engine.both():
        outputs = engine.llm.beam_search([{"prompt": "Once"}, {"prompt": "Then"}], beams)
        answers.append([[beam.tokens for beam in output.sequences] for output in outputs])
    assert answers[0] == answers[1]
    assert all(len(beams) == 3 for beams in answers[1])
    reply = engine.core.scheduler.exchange({})
    assert reply["charged"][""] > 0
    assert (reply["waiting"], reply["running"]) == (0, 0)


def test_embeddings(engine):
    """A pooling model has no output tokens: its clients pay for their input.

    It needs an engine of its own, beside the other.
    """
    from vllm import PoolingParams

    pooling = Engine(offline_engine(runner="pooling", convert="embed"))
    prompts = ["one", "two words", "and a whole sentence"]
    identity = {"fairlane": {"client": "a", "lease": "l"}}
    vectors = []
    try:
        for _ in pooling.both():
            outputs = pooling.llm.embed(
                prompts, pooling_params=PoolingParams(extra_kwargs=identity), use_tqdm=False
            )
            vectors.append([output.outputs.embedding for output in outputs])
        assert vectors[0] == vectors[1]
        used = leases(pooling.core.scheduler)["l"]
        assert used == [0, 0, sum(map(len, prompts)), 0, 0]
    finally:
        pooling.llm.llm_engine.engine_core.shutdown()
