"""Everything on one machine, in the foreground: start, say what happens, serve, end cleanly."""

from __future__ import annotations

import copy
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from deployments.config import AppConfig, home
from deployments.configuration.file import ServeFile, UnsoundFileError

READY_TIMEOUT_S = 600.0
ENVIRONMENT = Path(__file__).with_name("serve.env")


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """A Serve config file, read and checked."""

    path: Path
    name: str
    host: str
    port: int
    app: AppConfig

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.host}:{self.port}"


def load(
    path: Path,
    *,
    replicas: int | None = None,
    routers: int | None = None,
    max_num_seqs: int | None = None,
    port: int | None = None,
) -> LocalSettings:
    """Read a Serve config file with one Fairlane application. Exits with what is to be mended."""
    try:
        file = ServeFile.read(path)
        file.config()  # sound, so that there is something to replace
        args = copy.deepcopy(file.args)
        for pool in args["pools"]:
            if replicas is not None:
                pool["llm"].setdefault("deployment_config", {})["num_replicas"] = replicas
            if max_num_seqs is not None:
                pool["llm"].setdefault("engine_kwargs", {})["max_num_seqs"] = max_num_seqs
        if routers is not None:
            args.setdefault("router", {})["replicas"] = routers
        http = file.content.get("http_options") or {}
        return LocalSettings(
            path,
            file.application.get("name", "fairlane"),
            http.get("host", "127.0.0.1"),
            port or http.get("port", 8000),
            file.config(args),
        )
    except UnsoundFileError as error:
        raise SystemExit(str(error)) from None


def set_environment() -> None:
    """Set what serve.env names and the environment does not have yet."""
    for line in ENVIRONMENT.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, value = line.partition("=")
            os.environ.setdefault(name, value)


def close_haproxy() -> None:
    """Have Ray start HAProxy by way of `deployments.haproxy`, where that is installed."""
    own = Path(sys.executable).with_name("fairlane-haproxy")
    if own.exists():
        os.environ.setdefault("RAY_SERVE_HAPROXY_BINARY_PATH", str(own))


def avoid_taken_ports() -> None:
    """Give HAProxy's metrics and stats other ports when another program has the usual ones."""
    for variable, usual in (
        ("RAY_SERVE_HAPROXY_METRICS_PORT", 9101),
        ("RAY_SERVE_HAPROXY_STATS_PORT", 8404),
    ):
        if variable not in os.environ and not _is_free(usual):
            with socket.create_server(("", 0)) as probe:
                os.environ[variable] = str(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("", port)).close()
    except OSError:
        return False
    return True


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is being done, and how long it took."""
    print(f"  {what} ...", flush=True)
    start = time.monotonic()
    yield
    print(f"  {what}: {time.monotonic() - start:.1f} s", flush=True)


class LocalCluster:
    """A Ray cluster of this process, with the application in it."""

    def __init__(self, settings: LocalSettings) -> None:
        self._settings = settings
        self._stop = threading.Event()

    def run(self) -> int:
        """Start, serve until Ctrl-C or SIGTERM, end. Returns an exit status."""
        self._catch_signals()
        start = time.monotonic()
        print(f"Fairlane: starting {self._settings.path.name} on {self._settings.url}", flush=True)
        try:
            self.start()
            print(f"Fairlane is ready after {time.monotonic() - start:.0f} s. Try:\n", flush=True)
            print(self._curl(), flush=True)
            print("\nCtrl-C ends it.", flush=True)
            self._stop.wait()
            return 0
        except KeyboardInterrupt:
            return 0  # the usual way to end
        except StartError as error:
            print(f"fairlane: {error}", file=sys.stderr)
            return 1
        finally:
            self.stop()

    def start(self) -> None:
        """Bring everything up. Raises StartError."""
        if not _is_free(self._settings.port):
            raise StartError(
                f"port {self._settings.port} is taken; end what has it, or give --port another"
            )
        set_environment()
        # Ray's own ports on loopback only: the switch is named for systems where it is the default.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_SERVE_HAPROXY_NBTHREAD", "1")  # the cores are the engines'
        avoid_taken_ports()
        close_haproxy()
        home().mkdir(parents=True, exist_ok=True)
        with step("loading Ray Serve and vLLM"):
            import ray
            from ray import serve
            from ray.serve.api import RunTarget

            from deployments.app import build
        with step("starting Ray"):
            ray.init(
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
                namespace="serve",
            )
            self._catch_signals()  # Ray has put its own in place
            serve.start(
                proxy_location="HeadOnly",
                http_options={"host": self._settings.host, "port": self._settings.port},
            )
        with step("building the application"):
            target = RunTarget(build(self._settings.app), name=self._settings.name)
            serve.run_many([target], wait_for_applications_running=False)
        with step("starting routers and vLLM replicas"):
            self._wait_until_ready(serve)

    def stop(self) -> None:
        """End everything that `start` began."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        if "ray" not in sys.modules:
            return
        import ray
        from ray import serve

        if ray.is_initialized():
            start = time.monotonic()
            print("Fairlane: ending ...", flush=True)
            serve.shutdown()
            ray.shutdown()
            print(f"Fairlane: ended after {time.monotonic() - start:.1f} s", flush=True)

    def _catch_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._interrupt())

    def _interrupt(self) -> None:
        self._stop.set()
        raise KeyboardInterrupt

    def _wait_until_ready(self, serve: Any) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        start = time.monotonic()
        healthy: set[str] = set()
        while time.monotonic() < deadline:
            application = serve.status().applications.get(self._settings.name)
            if application is not None:
                if application.status in ("DEPLOY_FAILED", "UNHEALTHY"):
                    raise StartError(f"the application failed to start: {application.message}")
                for name, deployment in application.deployments.items():
                    if deployment.status == "HEALTHY" and name not in healthy:
                        healthy.add(name)
                        print(
                            f"    {name} is up after {time.monotonic() - start:.1f} s", flush=True
                        )
            if is_ready(self._settings.url):
                return
            time.sleep(0.25)
        raise StartError(f"not ready after {READY_TIMEOUT_S:.0f} s; see Ray's logs in /tmp/ray")

    def _curl(self) -> str:
        app = self._settings.app
        key = next(
            (key for client in app.clients for key in client.keys if "local" in key), "YOUR-KEY"
        )
        body = (
            f'{{"model": "{app.pools[0].model_id}", "max_tokens": 16, '
            '"messages": [{"role": "user", "content": "Hello"}]}'
        )
        return (
            f"  curl {self._settings.url}/v1/chat/completions \\\n"
            f"    -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\\n"
            f"    -d {shlex.quote(body)}"
        )


class StartError(Exception):
    """The application did not come up; the message says why."""


def is_ready(url: str) -> bool:
    """Does the application at `url` serve?"""
    try:
        return httpx.get(f"{url}/readyz", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False
