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

from deployments.config import EMBEDDED, AppConfig, PoolConfig, home
from deployments.embedded_store import EmbeddedStore
from deployments.live import live_settings
from deployments.tiny_model import ensure_tiny_model
from fairness.store.settings import StoreSettings
from replicas.queue_link import LinkSettings
from replicas.server import FairLLMServer, ReplicaSettings
from router.server import Router, RouterSettings

SCHEDULER = "replicas.scheduler.FairScheduler"
TINY = "tiny"


def build(args: AppConfig) -> Application:
    """Routers in front of replicas, and the embedded store if no other is named."""
    store = _store(args)
    return _router(args, store, [_pool(pool, args, store) for pool in args.pools])


def _store(config: AppConfig) -> StoreSettings:
    settings = config.store.settings()
    if settings.url != EMBEDDED:
        return settings
    deployment = serve.deployment(EmbeddedStore).options(
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
        policy=config.policy,
        build=secrets.token_hex(8),  # Serve builds anew only when `args` have changed
        queue=config.queue_settings(),
        live=functools.partial(live_settings, config.live(), classes=config.class_names()),
        admin_host=config.admin.host,
        admin_port=config.admin.port,
        fail_closed=config.store.fail_closed,
    )
    deployment = serve.deployment(Router).options(
        name="Router",
        num_replicas=config.router.replicas,
        max_ongoing_requests=1_000_000,  # admission is ours
        ray_actor_options={
            "num_cpus": config.router.num_cpus,
            # One event loop instead of two: half the CPU a chunk.
            "runtime_env": {"env_vars": {"RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0"}},
        },
        graceful_shutdown_wait_loop_s=0.1,
        logging_config={"enable_access_log": False},
        user_config={},  # a config file may give another: `Router.reconfigure`
    )
    return deployment.bind(settings, store, *pools)


def _pool(pool: PoolConfig, config: AppConfig, store: StoreSettings) -> Application:
    llm = copy.deepcopy(pool.llm)
    loading = llm["model_loading_config"]
    if loading.get("model_source") == TINY:
        loading["model_source"] = str(ensure_tiny_model(home() / "models" / "tiny-llama"))
        llm = _offline(llm)
    # Ray's wrapping of vLLM's per-token metrics costs a fifth of the replica's event loop; vLLM's
    # own metrics stay on.
    llm.setdefault("log_engine_metrics", False)
    engine = llm.setdefault("engine_kwargs", {})
    engine["disable_log_stats"] = False  # the link listens to the steps
    engine["scheduler_cls"] = SCHEDULER
    given = engine.get("additional_config", {})
    engine["additional_config"] = given | {
        "fairlane": {
            **given.get("fairlane", {}),
            "policy": config.policy,
            **dataclasses.asdict(config.cost.service_cost()),
            "classes": [list(each) for each in config.queue_settings().classes.classes],
        }
    }
    settings = ReplicaSettings(
        pool=pool.model_id,
        queue=config.queue_settings(),
        lookahead=pool.lookahead,
        drain_s=pool.drain_s,
        link=LinkSettings(charge_interval_s=pool.charge_interval_s),
    )
    return build_llm_deployment(
        LLMConfig(**llm),
        name_prefix="Replica:",
        deployment_cls=FairLLMServer,
        bind_kwargs={"settings": settings, "store": store},
        override_serve_options={
            # Serve waits this long for a leaving replica: a little longer than it needs.
            "graceful_shutdown_timeout_s": pool.drain_s + 10,
            "graceful_shutdown_wait_loop_s": 0.1,
        },
    )


def _offline(llm: dict[str, Any]) -> dict[str, Any]:
    runtime_env = llm.setdefault("runtime_env", {})
    runtime_env["env_vars"] = {"HF_HUB_OFFLINE": "1"} | runtime_env.get("env_vars", {})
    return llm
