"""Stopping a system under test for a while, and letting it go on: all its processes, by signal.

What is stopped uses no CPU, whatever timers it has. When it goes on, those that came due meanwhile
go off at once; connections wait in the kernel. So keep it short: Ray takes a node for dead after
some 50 s of unanswered pings, as seen by its own clock, and Fairlane's store a sender after 10 s,
unless the store was stopped as well.
"""

from __future__ import annotations

import contextlib
import os
import signal

from loadtests.process_cpu import ProcessId, system_processes


def freeze(session: int) -> None:
    """Stop every process of a session and its descendants, also those that appear meanwhile."""
    stopped: set[ProcessId] = set()
    while left := set(system_processes(session)) - stopped:
        _signal_all(left, signal.SIGSTOP)
        stopped |= left


def thaw(session: int) -> None:
    """Let every process of a session and its descendants go on."""
    _signal_all(set(system_processes(session)), signal.SIGCONT)


def _signal_all(processes: set[ProcessId], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
