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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from deployments.config import AppConfig, home
from deployments.configuration.file import ServeFile, UnsoundFileError

READY_TIMEOUT_S = 600.0
LOOK_S = 0.5  # between two looks whether the file is to be read again
METRICS_PORT = 8080  # where it is usual with Ray; FAIRLANE_METRICS_PORT names another
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


def metrics_port() -> int | None:
    """Where Ray is to export metrics; None: it may choose."""
    given = os.environ.get("FAIRLANE_METRICS_PORT")
    if given:
        return int(given)
    return METRICS_PORT if _is_free(METRICS_PORT) else None


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
    """A Ray cluster of this process, with the application in it.

    SIGHUP has the file read again and rolled out, while streams go on: Serve replaces routers and
    replicas by new ones, and those that leave are drained.
    """

    def __init__(self, read: Callable[[], LocalSettings]) -> None:
        """read: see `load`; called again when the file is to be read again."""
        self._read = read
        self._settings = read()
        self._stop = threading.Event()
        self._changed = threading.Event()

    def run(self) -> int:
        """Start, serve until Ctrl-C or SIGTERM, end. Returns an exit status."""
        self._catch_signals()
        start = time.monotonic()
        print(f"Fairlane: starting {self._settings.path.name} on {self._settings.url}", flush=True)
        try:
            self.start()
            print(f"Fairlane is ready after {time.monotonic() - start:.0f} s. Try:\n", flush=True)
            print(self._curl(), flush=True)
            print("\nCtrl-C ends it; SIGHUP reads the file again.", flush=True)
            while not self._stop.wait(LOOK_S):
                if self._changed.is_set():
                    self._changed.clear()
                    self._roll_out()
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

            import deployments.app  # noqa: F401 (so that building takes no time of its own)
        with step("starting Ray"):
            ray.init(
                include_dashboard=False,
                log_to_driver=False,
                configure_logging=False,
                namespace="serve",
                _metrics_export_port=metrics_port(),
            )
            self._catch_signals()  # Ray has put its own in place
            serve.start(
                proxy_location="HeadOnly",
                http_options={"host": self._settings.host, "port": self._settings.port},
            )
        with step("building the application"):
            self._deploy()
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

    def _deploy(self) -> None:
        from ray import serve
        from ray.serve.api import RunTarget

        from deployments.app import build

        target = RunTarget(build(self._settings.app), name=self._settings.name)
        serve.run_many([target], wait_for_applications_running=False)

    def _roll_out(self) -> None:
        try:
            settings = self._read()
        except SystemExit as error:  # unsound: what is there stays
            print(error, file=sys.stderr, flush=True)
            return
        if (settings.host, settings.port) != (self._settings.host, self._settings.port):
            print("fairlane: a new address needs a restart; it stays", file=sys.stderr, flush=True)
        with step(f"rolling out {settings.path.name}"):
            self._settings = replace(settings, host=self._settings.host, port=self._settings.port)
            self._deploy()

    def _catch_signals(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._interrupt())
        signal.signal(signal.SIGHUP, lambda *_: self._changed.set())

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
