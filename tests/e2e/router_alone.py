"""A Serve application of routers without replicas: what is asked of them here needs no engine.

Variables of the environment say how they are: DATA is the folder of the embedded store's data and
of the file that the routers read; the admin API is at ADMIN_PORT, if there is one; POOL is the
model that they serve, if any; who leaves has DRAIN_S seconds.
"""

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
    """Two routers and an embedded store."""
    port, pool = os.environ.get("ADMIN_PORT"), os.environ.get("POOL")
    drain_s = float(os.environ.get("DRAIN_S", "20"))
    store = serve.deployment(EmbeddedStore).options(name="Store", ray_actor_options={"num_cpus": 0})
    router = serve.deployment(Router).options(
        name="Router",
        num_replicas=2,
        max_ongoing_requests=1000,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=drain_s + 10,
        graceful_shutdown_wait_loop_s=0.1,
        user_config={},
    )
    file = f"{os.environ['DATA']}/live.yaml"
    settings = RouterSettings(
        pools=() if pool is None else (pool,),
        policy="vtc",
        build="test",
        queue=QueueSettings(ServiceCost()),
        live=functools.partial(live_settings, args.model_dump(mode="json"), files=[file]),
        live_files=(file,),
        admin_port=None if port is None else int(port),
        drain_s=drain_s,
    )
    return router.bind(settings, StoreSettings(store.bind(os.environ["DATA"])))
