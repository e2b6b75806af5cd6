"""vLLM's own OpenAI server with the single-process executor on CPU.

On CPU vLLM turns ``--distributed-executor-backend uni`` silently back into ``mp``
(``CpuPlatform.check_and_update_config``): an engine process plus a worker process that talk
through shared memory and spin while they wait. On a machine with few cores most of the time then
goes into the spinning. Fairlane's replicas run the engine in one process, so a comparison with
vLLM's own server is a comparison of executors unless that server gets the same one.

``python -m loadtests.vllm_uni_server ARGS...`` applies the patch and then runs exactly the main of
``python -m vllm.entrypoints.openai.api_server ARGS...``. The choice is made in the front-end
process and travels with the engine's configuration, so nothing has to be patched in the engine
process. OpenMP has to be tamed by hand as ``uni`` does not do it:
``VLLM_CPU_OMP_THREADS_BIND=nobind OMP_NUM_THREADS=1``.
"""

from __future__ import annotations

from typing import Any


def keep_uni_executor() -> None:
    """Make vLLM's CPU platform keep the ``uni`` executor for engines of one worker.

    Call before the engine configuration is created. Does nothing on other platforms and for
    engines that span several workers. Calling it twice is the same as calling it once.
    """
    from vllm.platforms.cpu import CpuPlatform

    if getattr(CpuPlatform, "_keeps_uni_executor", False):
        return
    checked = CpuPlatform.check_and_update_config

    def check_and_update_config(cls: type[Any], vllm_config: Any) -> None:
        checked(vllm_config)
        use_uni_executor(vllm_config)

    CpuPlatform.check_and_update_config = classmethod(check_and_update_config)
    CpuPlatform._keeps_uni_executor = True


def use_uni_executor(vllm_config: Any) -> None:
    """Set the single-process executor on a finished vLLM configuration of one CPU worker."""
    from vllm.platforms import current_platform

    parallel = vllm_config.parallel_config
    if current_platform.is_cpu() and parallel.world_size == 1:
        parallel.distributed_executor_backend = "uni"


def main() -> None:
    """Run vLLM's OpenAI server, command line and all, with the patch applied."""
    keep_uni_executor()
    from vllm.entrypoints.launchers.api_server.entry import main as vllm_main

    vllm_main()


if __name__ == "__main__":
    main()
