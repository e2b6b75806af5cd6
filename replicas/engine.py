"""vLLM as Fairlane runs it: Ray's engine class with the executor that suits a CPU."""

from __future__ import annotations

import os
from typing import Any

from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine


class FairVLLMEngine(VLLMEngine):
    """Ray's VLLMEngine; on CPU the engine's one worker runs in the engine process itself.

    vLLM turns every executor into "mp" on CPU: a second process, both spinning on shared memory.
    With one worker that only halves the tokens a second. On accelerators nothing changes.
    """

    def _prepare_engine_config(self, callback_ctx: Any) -> Any:
        engine_args, frontend_args, engine_config = super()._prepare_engine_config(callback_ctx)
        parallel = engine_config.parallel_config
        if engine_config.device_config.device_type == "cpu" and parallel.world_size == 1:
            parallel.distributed_executor_backend = "uni"
        return engine_args, frontend_args, engine_config


def cpu_environment(threads: int) -> dict[str, str]:
    """Environment of a CPU engine that shares its cores with other processes."""
    return {
        "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1"),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(threads),
    }
