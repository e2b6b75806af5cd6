"""Run the fair scheduler's tests with several versions of vLLM: a program, see the end.

Most of the ten seconds that ``import vllm`` takes go to PyTorch, transformers and other packages
that all versions share. So they are imported once, and each version is a fork of that process which
finds its own ``vllm`` first.

    python tests/integration/vllm_version_runs.py FOLDER...

Each folder holds the Python files of one version. Its output goes to ``FOLDER/tests.log``; the exit
status is 0 when all runs went well.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

TESTS = ("tests/unit/replicas/test_scheduler.py", "tests/unit/replicas/test_hold_back.py")
LOG = "tests.log"
OPTIONS = ("-q", "-p", "no:cacheprovider", "-W", "ignore")
AT_A_TIME = 2
# Only to save time: what is not here is imported by each version on its own.
SHARED = (
    "torch._dynamo",
    "torch._inductor.standalone_compile",
    "torch.distributed",
    "transformers.models.auto.image_processing_auto",
    "transformers.models.auto.modeling_auto",
    "cv2",
    "fastapi",
    "openai",
    "hypothesis",
    "numba",
    "pytest",
)
ENVIRONMENT = {
    "VLLM_TARGET_DEVICE": "cpu",  # there is no package metadata to tell
    "VLLM_LOGGING_LEVEL": "ERROR",
    "OMP_NUM_THREADS": "1",
}


def run_all(folders: Sequence[Path]) -> int:
    """Run each version, some at a time; return how many failed."""
    for name in SHARED:
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    failed = running = 0
    for folder in folders:
        if running == AT_A_TIME:
            failed += os.wait()[1] != 0
            running -= 1
        if os.fork() == 0:
            _run(folder)
        running += 1
    for _ in range(running):
        failed += os.wait()[1] != 0
    return failed


def _run(folder: Path) -> None:
    """In the fork: say which vLLM it really is, run the tests, end."""
    status = 70  # what is left if the next lines raise
    try:
        log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.path.insert(0, str(folder))
        os.environ["PYTHONPATH"] = str(folder)
        import pytest
        import vllm

        print("vLLM", vllm.__version__, flush=True)
        status = pytest.main([*TESTS, *OPTIONS])
        print("exit status", int(status), flush=True)
    finally:
        sys.stdout.flush()
        os._exit(status)


if __name__ == "__main__":
    os.environ.update(ENVIRONMENT)
    sys.exit(min(run_all([Path(name) for name in sys.argv[1:]]), 1))
