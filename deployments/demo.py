"""`fairlane demo`: the two-client demonstration, on the running app or on one it starts."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from deployments.config import home
from deployments.local_cluster import READY_TIMEOUT_S, LocalSettings, is_ready


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
            run_demo(url, admin_key, home() / "demo", seconds)
    except KeyboardInterrupt:
        print("fairlane: demo interrupted")
    return 0


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
