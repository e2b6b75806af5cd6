"""The engine's first steps, so that nobody's first request waits for what it compiles then.

vLLM warms the model up, but not the sampler: its first use of each way to sample (greedy, at
random, from the likeliest tokens only) compiles kernels, seconds on a CPU.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from vllm import SamplingParams

logger = logging.getLogger(__name__)

WAYS = (
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.9, "top_k": 20},
    {"temperature": 0.7, "repetition_penalty": 1.1, "frequency_penalty": 0.1},
)
TOKENS = 2


async def warm_up(engine_client: Any) -> None:
    """Let the engine make a few tokens in each way. Before any grant, and charged to nobody.

    An engine that doesn't generate (embeddings) is left alone. A way that it refuses is no reason
    not to serve the others.
    """
    if engine_client.model_config.runner_type != "generate":
        return
    began = time.monotonic()
    for number, way in enumerate(WAYS):
        params = SamplingParams(max_tokens=TOKENS, ignore_eos=True, **way)
        prompt = {"prompt_token_ids": [0, 1, 2, 3]}
        try:
            async for _ in engine_client.generate(prompt, params, f"warm-up-{number}"):
                pass
        except ValueError as error:
            logger.warning("the engine can't warm up with %s: %s", way, error)
    logger.info("warmed up in %.1f s", time.monotonic() - began)
