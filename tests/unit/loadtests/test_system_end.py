"""Ending a system: its session, and what has left it."""

import subprocess
import sys
import time

from loadtests.process_cpu import alive, system_processes
from loadtests.system_end import end_system


def test_nothing_is_left_of_a_system() -> None:
    # It ends at SIGINT, but leaves a child in a session of its own, which heeds nobody.
    child = "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); time.sleep(60)"
    script = f"""
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {child!r}], start_new_session=True)
print("ready", flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = system_processes(process.pid)
        assert len(found) == 2
        end_system(process)
    deadline = time.monotonic() + 10  # the kernel takes a moment
    while left := [key for key in found if alive(key)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)
