"""Ending a system under test, so that nothing of it is left: not by its name, but by its session.

A system is started with ``start_new_session=True``; `process_cpu.system_processes` finds what
belongs to it, also what its main process has left behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

from loadtests.process_cpu import ProcessId, alive, system_processes

STOP_LIMIT_S = 60.0


def end_system(process: subprocess.Popen[bytes]) -> None:
    """Ask nicely, then insist: SIGINT to the main process, SIGKILL to whatever is left."""
    left = set(system_processes(process.pid))
    for number, limit_s in ((signal.SIGINT, STOP_LIMIT_S), (signal.SIGTERM, 10.0)):
        if process.poll() is None:
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(limit_s)
    # A parent that has just ended may still be taking its children along.
    deadline = time.monotonic() + 5.0
    while (left := _living(process, left)) and time.monotonic() < deadline:
        time.sleep(0.1)
    for key in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(key.pid, signal.SIGKILL)
    process.wait(10)


def _living(process: subprocess.Popen[bytes], known: set[ProcessId]) -> set[ProcessId]:
    return {key for key in known | set(system_processes(process.pid)) if alive(key)}
