"""`python -m tests.e2e.routers_serving PORT`: routers alone (`router_alone`) behind HAProxy, on a
Ray cluster as `fairlane serve` makes it.

It writes the store's URL when they are up. Then each line that it reads, JSON, is what a config
file has under `deployments`, and is deployed.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from deployments.local_cluster import close_haproxy, set_environment
from tests.e2e.conftest import ROOT

APPLICATION = "leaving"
ADMIN, FIRST = "sk-admin", "sk-first"
VARIABLES = ("DATA", "POOL", "DRAIN_S", "FAIRLANE_GRANT_KEY")


def deploy(deployments: list[dict[str, Any]]) -> None:
    """What `serve deploy` does with a file."""
    from ray.serve.context import _get_global_client
    from ray.serve.schema import ServeDeploySchema

    application = {
        "name": APPLICATION,
        "import_path": "tests.e2e.router_alone:build",
        "args": {"clients": [{"name": "alice", "keys": [FIRST]}], "admin_keys": [ADMIN]},
        "deployments": deployments,
    }
    schema = ServeDeploySchema.model_validate({"applications": [application]})
    client = _get_global_client()
    assert client is not None
    client.deploy_apps(schema, _blocking=True)


def main() -> None:
    """Serve until the input ends."""
    set_environment()
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    close_haproxy()
    import ray
    from ray import serve

    variables = {name: os.environ[name] for name in VARIABLES} | {"PYTHONPATH": str(ROOT)}
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
        namespace="serve",
        runtime_env={"env_vars": variables},
    )
    try:
        options = {"host": "127.0.0.1", "port": int(sys.argv[1])}
        serve.start(proxy_location="HeadOnly", http_options=options)
        deploy([])
        print(serve.get_deployment_handle("Store", APPLICATION).url.remote().result(), flush=True)
        for line in sys.stdin:
            deploy(json.loads(line))
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
