"""Child processes that end with the harness, even when that is killed.

The kernel kills them when the *thread* that forked them ends (see `deployments.embedded_store`),
so fork from the main thread, and not from an executor.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from deployments.embedded_store import LAUNCHER


def spawn(
    command: Sequence[str],
    log: Path,
    *,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    controlled: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a program (an absolute path first) in a session of its own, its output in ``log``.

    controlled: with a pipe to its standard input.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-ISc", LAUNCHER, str(os.getpid()), *command],
            stdin=subprocess.PIPE if controlled else subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if environment is None else dict(environment),
            cwd=cwd,
            start_new_session=True,
        )
