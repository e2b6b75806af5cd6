"""A Serve application of routers without replicas: what is asked of them here needs no engine."""

# No `from __future__ import annotations` here: Serve reads the annotation of `build`.
import functools
import os

from ray import serve
from ray.serve import Application

from deployments.config import LiveConfig
from deployments.embedded_store import EmbeddedStore
from deployments.live import live_settings
from fairness.cost import ServiceCost
from fairness.store.contract import QueueSettings
from fairness.store.settings import StoreSettings
from router.server import Router, RouterSettings


def build(args: LiveConfig) -> Application:
    """Two routers and an embedded store, whose data are in the folder DATA of the environment, with
    the file that the routers read; the admin API is at its ADMIN_PORT."""
    store = serve.deployment(EmbeddedStore).options(name="Store", ray_actor_options={"num_cpus": 0})
    router = serve.deployment(Router).options(
        name="Router",
        num_replicas=2,
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_wait_loop_s=0.1,
        user_config={},
    )
    file = f"{os.environ['DATA']}/live.yaml"
    settings = RouterSettings(
        pools=(),
        policy="vtc",
        build="test",
        queue=QueueSettings(ServiceCost()),
        live=functools.partial(live_settings, args.model_dump(mode="json"), files=[file]),
        live_files=(file,),
        admin_port=int(os.environ["ADMIN_PORT"]),
    )
    return router.bind(settings, StoreSettings(store.bind(os.environ["DATA"])))
