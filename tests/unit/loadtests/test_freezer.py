"""A system that is stopped, and goes on: its children too."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from loadtests.freezer import freeze, thaw
from loadtests.process_cpu import parse_stat, system_processes

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def cpu_s(pid: int) -> float:
    return parse_stat(Path(f"/proc/{pid}/stat").read_text()).cpu_s


def test_all_of_a_system_stops_and_goes_on() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        freeze(parent.pid)
        assert (state(parent.pid), state(child)) == ("T", "T")
        before = cpu_s(child)
        time.sleep(0.1)
        assert cpu_s(child) == before
        thaw(parent.pid)
        deadline = time.monotonic() + 30
        while cpu_s(child) == before:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        for process in system_processes(parent.pid).values():
            subprocess.run(["kill", "-KILL", str(process.id.pid)], check=False)
        parent.wait(10)
