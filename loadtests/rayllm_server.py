"""Plain ``ray.serve.llm`` on this machine, to compare with: its builder, its defaults, one engine.

The only thing changed is the engine's executor, by the same patch that `vllm_uni_server` gives
vLLM's own server: ray.llm takes the engine class from an environment variable that its replicas
inherit. Ray runs as its own local cluster, which ends with this process, without the dashboard,
which Fairlane's local cluster has not either.

``python -m loadtests.rayllm_server --model PATH --served-model-name NAME --port N
--engine-kwargs JSON`` serves until SIGINT or SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
from typing import Any


def engine_class() -> type:
    """Return ray.llm's vLLM engine with the single-process executor. Imports vLLM: slow."""
    from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine

    from loadtests.vllm_uni_server import use_uni_executor

    class UniExecutorEngine(VLLMEngine):
        """A VLLMEngine whose worker lives in the engine process, on CPU."""

        def _prepare_engine_config(self, callback_ctx: Any) -> Any:
            engine_args, frontend_args, config = super()._prepare_engine_config(callback_ctx)
            use_uni_executor(config)
            return engine_args, frontend_args, config

    return UniExecutorEngine


def __getattr__(name: str) -> type:
    # ray.llm imports the class by its dotted name; this module must stay importable without vLLM.
    if name == "UniExecutorEngine":
        return engine_class()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def serve(model: str, name: str, port: int, engine_kwargs: dict[str, Any]) -> None:
    """Start Ray and one OpenAI app over one CPU engine, and return when it serves."""
    import ray
    from ray import serve
    from ray.serve.llm import LLMConfig, ModelLoadingConfig, build_openai_app

    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    config = LLMConfig(
        model_loading_config=ModelLoadingConfig(model_id=name, model_source=model),
        accelerator_type=None,
        placement_group_config={"bundles": [{"CPU": 0.1}]},
        deployment_config={"num_replicas": 1, "ray_actor_options": {"num_cpus": 0}},
        engine_kwargs=engine_kwargs,
    )
    serve.run(build_openai_app({"llm_configs": [config]}))


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description="plain ray.serve.llm over one CPU engine")
    parser.add_argument("--model", required=True)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--engine-kwargs", type=json.loads, default={})
    options = parser.parse_args()
    os.environ["RAYLLM_VLLM_ENGINE_CLS"] = f"{__spec__.name}.UniExecutorEngine"

    serve(options.model, options.served_model_name, options.port, options.engine_kwargs)
    # After ray.init, which installs a SIGTERM handler of its own that aborts the process.
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    print("serving", flush=True)
    stop.wait()

    import ray
    from ray import serve as ray_serve

    ray_serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
