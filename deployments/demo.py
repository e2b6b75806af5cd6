"""`fairlane demo`: the two-client demonstration, on the running app or on one it starts."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Group, RenderableType
from rich.text import Text

from deployments.admin.api import AdminApi, CommandError
from deployments.config import home
from deployments.local_cluster import READY_TIMEOUT_S, LocalSettings, is_ready
from deployments.top import EVERY_S, drawn, observed

CLIENTS = 6  # rows


def demo(
    settings: LocalSettings,
    base_url: str | None,
    admin_key: str,
    seconds: float,
    serve_arguments: Sequence[str],
) -> int:
    """Run it; returns an exit status. `serve_arguments` start the app if there is none."""
    from loadtests.demo import run_demo

    url = base_url or settings.url
    try:
        with _running(url, serve_arguments, may_start=base_url is None):
            print(f"fairlane: watch it at {url}/dashboard (log in with the admin key)")
            with _watched(url, admin_key) as watch:
                run_demo(url, admin_key, home() / "demo", seconds, watch=watch)
    except KeyboardInterrupt:
        print("fairlane: demo interrupted")
    return 0


@contextmanager
def _watched(url: str, admin_key: str) -> Iterator[Callable[[], RenderableType]]:
    """Yield what draws the pools as they were a moment ago; a thread asks for them."""
    api = AdminApi(url, admin_key)
    over = threading.Event()
    shown: RenderableType = ""

    def ask() -> None:
        nonlocal shown
        while not over.wait(EVERY_S):
            try:
                shown = Group("", drawn(observed(api), CLIENTS))
            except CommandError as error:
                shown = Text(str(error), style="red")

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    try:
        yield lambda: shown
    finally:
        over.set()
        asking.join()
        api.close()


@contextmanager
def _running(url: str, serve_arguments: Sequence[str], may_start: bool) -> Iterator[None]:
    """The app at `url`: as it is, or started here and ended afterwards."""
    if is_ready(url):
        yield
        return
    if not may_start:
        raise SystemExit(f"fairlane: nothing serves at {url}; start it, or leave --base-url out")
    command = [sys.executable, "-m", "deployments.cli", "serve", *serve_arguments]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not is_ready(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("fairlane: the app did not start; what it said is above")
            time.sleep(0.5)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
