"""The real application on three nodes: a head that does no work, and two workers.

Each worker has one router, one replica and one HAProxy; both stores (Fairlane's, and that of Ray's
control plane) are outside, where the clients are. So every router has a replica on its own node and
one on the other, and the head has nothing that a request needs.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from loadtests.chaos.application import ROOT, Application, ApplicationFailedError
from loadtests.chaos.machines import Machine, MachineFailedError
from loadtests.chaos.store_servers import StoreServer
from loadtests.process_cpu import ProcessId, system_processes

LOCAL = ROOT / "deployments" / "local.yaml"
ENVIRONMENT = ROOT / "deployments" / "serve.env"
GCS_PORT = 6379
HTTP_PORT = 8000
# One router fits on a worker beside a replica, and no second one; a replica takes the one `slot`.
WORKER_CPUS = 3
ROUTER_CPUS = 2
SLOT = "slot"
OBJECTS_BYTES = 100_000_000
# Ray's processes end when they have been without a head for so long; the default is 60 s.
WITHOUT_HEAD_S = 600
DEPLOY_S = 120.0


def config_of_nodes(store_url: str) -> dict[str, object]:
    """local.yaml's application, spread over nodes."""
    content = yaml.safe_load(LOCAL.read_text(encoding="utf-8"))
    content["proxy_location"] = "EveryNode"
    content["http_options"] = {"host": "0.0.0.0", "port": HTTP_PORT}
    args = content["applications"][0]["args"]
    args["store"] = {"url": store_url}
    args["router"]["num_cpus"] = ROUTER_CPUS
    args["pools"][0]["llm"]["placement_group_config"] = {"bundles": [{"CPU": 0.1, SLOT: 1}]}
    return dict(content)


class NodesApplication(Application):
    """The application on its nodes; clients ask the first worker's HAProxy."""

    def __init__(
        self, config: Path, store_url: str, control: StoreServer, home: Path, folder: Path
    ) -> None:
        """control: the store of Ray's control plane. folder: for logs. Nothing is started yet."""
        super().__init__(config, store_url, home, folder / "deploy.log")
        folder.mkdir(parents=True, exist_ok=True)
        self.head = Machine("head", 10, folder)
        self.workers = [Machine(f"worker{n}", 10 + n, folder) for n in (1, 2)]
        self._environment = os.environ | _cluster_environment() | {
            "PYTHONPATH": str(ROOT),
            "FAIRLANE_HOME": str(home),
            "REDIS_URL": store_url,
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_SERVE_HAPROXY_BINARY_PATH": str(
                Path(sys.executable).with_name("fairlane-haproxy")
            ),
            "RAY_SERVE_HAPROXY_NBTHREAD": "1",
            "RAY_gcs_rpc_server_reconnect_timeout_s": str(WITHOUT_HEAD_S),
        }  # fmt: skip
        self._control = {"RAY_REDIS_ADDRESS": f"{control.host}:{control.port}"}

    @property
    def url(self) -> str:
        """Where clients ask: the first worker's HAProxy."""
        return f"http://{self.workers[0].address}:{HTTP_PORT}"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Start the nodes and the application; pull all plugs after.

        Raises ApplicationFailedError when it does not start.
        """
        try:
            self.start_head()
            for worker in self.workers:
                self.start_worker(worker)
            self._deploy()
            self._wait_until_ready()
            yield
        except MachineFailedError as error:
            raise ApplicationFailedError(str(error)) from error
        finally:
            for machine in (*self.workers, self.head):
                machine.pull_the_plug()

    def start_head(self) -> None:
        """Start the head; one that ran before comes back as the same cluster.

        `ray start` gives up when the machine is too busy. As under systemd or Kubernetes what it
        left is ended then, and it is started again.
        """
        ray = _ray("--head", f"--port={GCS_PORT}", "--num-cpus=0", "--include-dashboard=false")
        self.head.start(
            ["sh", "-c", 'until "$@"; do kill -9 -1; sleep 1; done', "restart",
             *ray, f"--node-ip-address={self.head.address}"],
            self._environment | self._control,
        )  # fmt: skip

    def start_worker(self, worker: Machine) -> None:
        """Start a worker; it asks for the head until that is there."""
        until = f"import socket; socket.create_connection(('{self.head.address}', {GCS_PORT}), 1)"
        ray = _ray(f"--address={self.head.address}:{GCS_PORT}", f"--num-cpus={WORKER_CPUS}")
        ray += [f"--node-ip-address={worker.address}", f'--resources={{"{SLOT}": 1}}']
        worker.start(
            ["sh", "-c", 'until "$0" -c "$1" 2>/dev/null; do sleep 0.5; done; shift; exec "$@"',
             sys.executable, until, *ray],
            self._environment,
        )  # fmt: skip

    def _deploy(self) -> None:
        """Hand the configuration to Serve, once there is a head."""
        command = _python(
            "ray.serve.scripts", "cli", "run", "--non-blocking",
            f"--address={self.head.address}:{GCS_PORT}", str(self._config),
        )  # fmt: skip
        script = 'for _ in $(seq 60); do "$@" && exit; sleep 1; done; exit 1'
        with self._log.open("wb") as log:
            done = subprocess.run(
                self.head.inside(["sh", "-c", script, "deploy", *command]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                cwd=ROOT,
                check=False,
                timeout=DEPLOY_S,
            )
        if done.returncode:
            raise ApplicationFailedError(f"it could not be deployed; see {self._log}")

    def _is_up(self) -> bool:
        return self._is_whole(routers=2, replicas=2)

    def _sessions(self) -> list[int]:
        return [machine.session for machine in (self.head, *self.workers)]

    def on(self, machine: Machine, name: str) -> ProcessId:
        """A process of a machine whose name begins so. Raises ApplicationFailedError."""
        for process in system_processes(machine.session).values():
            if process.name.startswith(name):
                return process.id
        raise ApplicationFailedError(f"{machine.address} has no process called {name}")


def _cluster_environment() -> dict[str, str]:
    lines = ENVIRONMENT.read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def _ray(*options: str) -> list[str]:
    return _python(
        "ray.scripts.scripts", "main", "start", "--block", "--disable-usage-stats",
        f"--object-store-memory={OBJECTS_BYTES}", *options,
    )  # fmt: skip


def _python(module: str, function: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", f"from {module} import {function}; {function}()", *arguments]
