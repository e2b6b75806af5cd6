"""What Serve changes without a restart: real routers, a real store, no engines."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import ROOT, free_port

pytestmark = pytest.mark.e2e

WAIT_S = 120.0
LOOKS = 32  # whichever router is asked: there are two
APPLICATION = "routers"
FIRST = {"name": "alice", "weight": 2, "keys": ["sk-first"]}
SECOND = {"name": "alice", "weight": 3, "keys": ["sk-second"]}
ADMIN = {"Authorization": "Bearer sk-admin"}
ARGS = {"clients": [FIRST], "admin_keys": ["sk-admin"]}


class Routers:
    """The routers at `url`, with their admin API at `admin_url`. file: what they read besides what
    is deployed."""

    def __init__(self, url: str, admin_url: str, file: Path) -> None:
        self.url = url
        self.admin_url = admin_url
        self.file = file

    def deploy(self, *changes: dict[str, Any]) -> None:
        """What `serve deploy` does with a file. changes: what is under `deployments`."""
        from ray.serve.context import _get_global_client
        from ray.serve.schema import ServeDeploySchema

        application = {
            "name": APPLICATION,
            "import_path": "tests.e2e.router_alone:build",
            "args": ARGS,
            "deployments": list(changes),
        }
        schema = ServeDeploySchema.model_validate({"applications": [application]})
        _get_global_client().deploy_apps(schema, _blocking=True)

    def get(self, path: str, key: str | None = None) -> httpx.Response:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.get(f"{self.url}{path}", headers=headers, timeout=30)

    def names(self) -> set[str]:
        """Each router's name is made anew when it starts."""
        return {self.get("/healthz").json()["router"] for _ in range(LOOKS)}

    def opens(self, key: str) -> bool:
        return self.get("/v1/models", key).status_code == 200

    def become(self, condition: Callable[[], bool]) -> None:
        """Wait until every router is as `condition` wants it."""
        deadline = time.monotonic() + WAIT_S
        in_a_row = 0
        while in_a_row < LOOKS:
            in_a_row = in_a_row + 1 if condition() else 0
            assert time.monotonic() < deadline


def changed(user_config: dict[str, Any] | None) -> dict[str, Any]:
    """An entry under `deployments`."""
    return {"name": "Router", "user_config": user_config}


@pytest.fixture(scope="module")
def routers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Routers]:
    import ray
    from ray import serve

    data: Path = tmp_path_factory.mktemp("valkey")
    port, admin_port = free_port(), free_port()
    file = data / "live.yaml"
    file.write_text("")
    variables = {"PYTHONPATH": str(ROOT), "DATA": str(data), "ADMIN_PORT": str(admin_port)}
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        configure_logging=False,
        log_to_driver=False,
        namespace="serve",
        runtime_env={"env_vars": variables},
    )
    try:
        serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
        yield Routers(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}", file)
    finally:
        serve.shutdown()
        ray.shutdown()


def test_clients_keys_and_limits_change_and_no_router_restarts(routers: Routers) -> None:
    routers.deploy()
    routers.become(lambda: routers.opens("sk-first"))
    names = routers.names()
    assert len(names) == 2
    assert not routers.opens("sk-second")

    routers.deploy(changed({"clients": [SECOND], "router": {"max_body_bytes": 10}}))
    routers.become(lambda: routers.opens("sk-second") and not routers.opens("sk-first"))
    for _ in range(LOOKS):  # the routers share the port
        shown = httpx.get(f"{routers.admin_url}/admin/clients/alice", headers=ADMIN, timeout=30)
        assert shown.json()["weight"] == 3
    assert httpx.get(f"{routers.admin_url}/admin/clients", timeout=30).status_code == 401
    assert httpx.get(f"{routers.admin_url}/v1/models", headers=ADMIN, timeout=30).is_client_error
    assert routers.get("/admin/clients/alice", "sk-admin").status_code == 404  # no more there
    answer = httpx.post(
        f"{routers.url}/v1/completions",
        headers={"Authorization": "Bearer sk-second"},
        json={"model": "none", "prompt": "far too long"},
    )
    assert answer.status_code == 413

    routers.deploy(changed({"clients": [SECOND | {"weight": -1}]}))  # unsound: what was there stays
    routers.become(lambda: routers.opens("sk-second"))

    for without in ([changed(None)], []):
        routers.deploy(changed({"clients": [SECOND]}))
        routers.become(lambda: routers.opens("sk-second"))
        routers.deploy(*without)
        routers.become(lambda: routers.opens("sk-first") and not routers.opens("sk-second"))
    assert routers.names() == names


def test_a_file_changes_clients_and_no_router_restarts(routers: Routers) -> None:
    routers.deploy()
    routers.become(lambda: routers.opens("sk-first"))
    names = routers.names()

    routers.file.write_text("clients: [{name: carol, keys: [sk-file]}]\n")
    routers.become(lambda: routers.opens("sk-file"))
    assert routers.opens("sk-first")  # added, not instead

    routers.file.write_text("clients: {}\n")  # unsound: what was there stays
    routers.file.with_name("new.yaml").write_text("clients: [{name: carol, keys: [sk-other]}]\n")
    assert routers.opens("sk-file")
    routers.file.with_name("new.yaml").replace(routers.file)
    routers.become(lambda: routers.opens("sk-other") and not routers.opens("sk-file"))
    assert routers.names() == names
