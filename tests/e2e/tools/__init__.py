"""Programs of others that talk to the application, at the versions of the lock files here.

They lie in .local/tools, one folder for each content of a lock file, and are made once. Where the
registry can't be reached they can't be, and what needs them is skipped with that word.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[3]
FOLDER = ROOT / ".local" / "tools"
LIMIT_S = 240

# What npm and pip say when nobody answers, as against a package that is not there or not sound.
_UNREACHABLE = re.compile(
    "ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|EHOSTUNREACH"
    "|NewConnectionError|ConnectTimeoutError|NameResolutionError|ReadTimeoutError|ProxyError"
)


def node() -> Path:
    """A folder whose node_modules hold the packages of package-lock.json."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    lock = HERE / "package-lock.json"
    folder = FOLDER / f"node-{_digest(lock)}"
    if _is_new(folder):
        for path in (HERE / "package.json", lock):
            shutil.copy(path, folder)
        _install("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)
        _done(folder)
    return folder


def python() -> Path:
    """The bin folder of an environment with the packages of tools.lock."""
    lock = HERE / "tools.lock"
    folder = FOLDER / f"python-{_digest(lock)}"
    if _is_new(folder):
        _install(sys.executable, "-m", "venv", "--without-pip", str(folder))
        pip = (sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"))
        how = ("--quiet", "--no-deps", "--no-compile", "--require-hashes")
        _install(*pip, "install", *how, "-r", str(lock))
        _done(folder)
    return folder / "bin"


def _digest(lock: Path) -> str:
    return hashlib.sha256(lock.read_bytes()).hexdigest()[:12]


def _is_new(folder: Path) -> bool:
    """An empty folder, unless there is a finished one."""
    if (folder / "done").exists():
        return False
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return True


def _done(folder: Path) -> None:
    (folder / "done").touch()


def _install(*command: str, cwd: Path = ROOT) -> None:
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"{command[0]} could not install in {LIMIT_S} s: is its registry in reach?")
    if done.returncode:
        if _UNREACHABLE.search(done.stdout + done.stderr):
            pytest.skip(f"{Path(command[0]).name} cannot reach its registry")
        pytest.fail(f"{command} failed:\n{done.stderr[-2000:]}")
