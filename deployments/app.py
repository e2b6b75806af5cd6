"""`deployments.app:build`: the Serve application that `serve run` and KubeRay take."""

# No `from __future__ import annotations` here: Serve reads the annotation of `build` to turn the
# configuration's dictionary into an AppConfig.
import copy
import dataclasses
import functools
import secrets
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.llm import LLMConfig, build_llm_deployment

from deployments.config import EMBEDDED, AppConfig, PoolConfig, TracingConfig, home
from deployments.live import live_settings
from deployments.one_node import OneNodeStore
from deployments.tiny_model import ensure_tiny_model
from fairness.store.settings import StoreSettings
from replicas.neighbours import NeighbourSettings
from replicas.queue_link import LinkSettings
from replicas.server import FairLLMServer, ReplicaSettings
from router.server import Router, RouterSettings

SCHEDULER = "replicas.scheduler.FairScheduler"
AUTOSCALER = "replicas.autoscaling:ByBacklog"
STOP_S = 10.0  # what a drained process may need besides
TINY = "tiny"
ADAPTERS_IN_A_BATCH = 4  # unless `max_loras` says otherwise; each has its place in GPU memory


def build(args: AppConfig) -> Application:
    """Routers in front of replicas, and the embedded store if no other is named."""
    store = _store(args)
    return _router(args, store, [_pool(pool, args, store) for pool in args.pools])


def _store(config: AppConfig) -> StoreSettings:
    settings = config.store.settings()
    if settings.url != EMBEDDED:
        return settings
    deployment = serve.deployment(OneNodeStore).options(
        name="Store",
        num_replicas=1,
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_wait_loop_s=0.1,
        health_check_period_s=5,
    )
    # Serve finds the application in the settings and puts its handle there.
    return dataclasses.replace(settings, url=deployment.bind(str(home() / "valkey")))


def _router(config: AppConfig, store: StoreSettings, pools: list[Application]) -> Application:
    settings = RouterSettings(
        pools=tuple(pool.model_id for pool in config.pools),
        adapters={name: pool.model_id for pool in config.pools for name in pool.adapters},
        prices={name: price for pool in config.pools for name, price in pool.prices.items()},
        policy=config.policy,
        build=secrets.token_hex(8),  # Serve builds anew only when `args` have changed
        queue=config.queue_settings(),
        live=functools.partial(
            live_settings,
            config.live(),
            files=config.live_files,
            classes=config.class_names(),
        ),
        live_files=config.live_files,
        admin_host=config.admin.host,
        admin_port=config.admin.port,
        fail_closed=config.store.fail_closed,
        drain_s=config.router.drain_s,
        top_clients=config.metrics.top_clients,
        watch=config.watch_settings(),
        log_format=config.logging.format,
        session_hours=config.dashboard.session_hours if config.dashboard.enabled else None,
    )
    number = (
        {"num_replicas": config.router.replicas}
        if config.router.autoscaling is None
        else {"autoscaling_config": config.router.autoscaling}
    )
    deployment = serve.deployment(Router).options(
        **number,
        name="Router",
        max_ongoing_requests=1_000_000,  # admission is ours
        ray_actor_options={
            "num_cpus": config.router.num_cpus,
            "label_selector": config.router.label_selector,
            # One event loop instead of two: half the CPU a chunk.
            "runtime_env": {"env_vars": {"RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0"}},
        },
        graceful_shutdown_timeout_s=config.router.drain_s + STOP_S,
        graceful_shutdown_wait_loop_s=1,  # each look is a line in Serve's log
        logging_config={"enable_access_log": False},
        user_config={},  # a config file may give another: `Router.reconfigure`
    )
    return deployment.bind(settings, store, *pools)


def _pool(pool: PoolConfig, config: AppConfig, store: StoreSettings) -> Application:
    llm = copy.deepcopy(pool.llm)
    loading = llm["model_loading_config"]
    if loading.get("model_source") == TINY:
        loading["model_source"] = str(ensure_tiny_model(home() / "models" / "tiny-llama"))
        llm = _with_environment(llm, HF_HUB_OFFLINE="1")
    # Ray's wrapping of vLLM's per-token metrics costs a fifth of the replica's event loop; vLLM's
    # own metrics stay on.
    llm.setdefault("log_engine_metrics", False)
    _autoscale(llm)
    engine = llm.setdefault("engine_kwargs", {})
    engine["disable_log_stats"] = False  # the link listens to the steps
    engine["scheduler_cls"] = SCHEDULER
    if pool.adapters:
        _serve_adapters(pool, engine)
    given = engine.get("additional_config", {})
    engine["additional_config"] = given | {
        "fairlane": {
            **given.get("fairlane", {}),
            "policy": config.policy,
            **dataclasses.asdict(config.cost.service_cost()),
            "classes": [list(each) for each in config.queue_settings().classes.classes],
        }
    }
    llm = _traced(llm, config.tracing)
    settings = ReplicaSettings(
        pool=pool.model_id,
        queue=config.queue_settings(),
        lookahead=pool.lookahead,
        drain_s=pool.drain_s,
        link=LinkSettings(charge_interval_s=pool.charge_interval_s),
        log_format=config.logging.format,
        neighbours=_neighbours(pool, config),
    )
    return build_llm_deployment(
        LLMConfig(**llm),
        name_prefix="Replica:",
        deployment_cls=FairLLMServer,
        bind_kwargs={"settings": settings, "store": store},
        override_serve_options={
            # Serve waits this long for a leaving replica: a little longer than it needs.
            "graceful_shutdown_timeout_s": pool.drain_s + STOP_S,
            "graceful_shutdown_wait_loop_s": 0.1,
        },
    )


def _neighbours(pool: PoolConfig, config: AppConfig) -> tuple[NeighbourSettings, ...]:
    """The other pools, if what is used here counts there."""
    if not config.across_pools.enabled:
        return ()
    return tuple(
        NeighbourSettings(other.model_id, pool.price / other.price, config.across_pools.debt)
        for other in config.pools
        if other is not pool
    )


def _serve_adapters(pool: PoolConfig, engine: dict[str, Any]) -> None:
    """Have vLLM load the adapters when it starts and keep all of them in the host's memory."""
    count = len(pool.adapters)
    engine["enable_lora"] = True
    engine["lora_modules"] = [
        {"name": name, "path": path, "base_model_name": pool.model_id}
        for name, path in pool.adapter_paths.items()
    ]
    engine.setdefault("max_loras", min(count, ADAPTERS_IN_A_BATCH))
    engine.setdefault("max_cpu_loras", max(count, engine["max_loras"]))


def _autoscale(llm: dict[str, Any]) -> None:
    """Where the number of replicas is to follow the load, it follows ours: Serve sees none."""
    deployment = llm.get("deployment_config") or {}
    if deployment.get("num_replicas") == "auto" or "autoscaling_config" in deployment:
        scaling = deployment.setdefault("autoscaling_config", {})
        scaling.setdefault("policy", {"policy_function": AUTOSCALER})


def _traced(llm: dict[str, Any], tracing: TracingConfig) -> dict[str, Any]:
    """Have vLLM add its spans to the routers', unless it has a collector of its own."""
    endpoint = tracing.resolved()
    if endpoint is None or not tracing.engine or "otlp_traces_endpoint" in llm["engine_kwargs"]:
        return llm
    llm["engine_kwargs"]["otlp_traces_endpoint"] = endpoint
    return _with_environment(llm, OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="http/protobuf")


def _with_environment(llm: dict[str, Any], **variables: str) -> dict[str, Any]:
    runtime_env = llm.setdefault("runtime_env", {})
    runtime_env["env_vars"] = variables | runtime_env.get("env_vars", {})
    return llm
