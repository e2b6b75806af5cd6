"""The tests of the fair scheduler, on the scheduler code of each vLLM version it supports.

`FakeEngine` needs vLLM's Python files and nothing of its compiled code, so each version runs here
from its source (see `vllm_source`) with everything else of this environment. What is shown is that
the scheduler does its work with the scheduler of that version; engines are started with the
installed version only, whose scheduler tests are those in `tests/unit`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.vllm_source import RELEASES, CannotFetchError, python_files
from tests.integration.vllm_version_runs import LOG

ROOT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("vllm_version_runs.py")
TIMEOUT_S = 900  # a minute, where nothing else runs


@pytest.fixture(scope="module")
def logs() -> dict[str, str]:
    """What the tests said, by version; or why there are none."""
    folders, logs = {}, {}
    with ThreadPoolExecutor() as pool:
        fetched = {version: pool.submit(python_files, version) for version in RELEASES}
    for version, folder in fetched.items():
        try:
            folders[version] = folder.result()
        except CannotFetchError as error:
            logs[version] = str(error)
        else:
            (folders[version] / LOG).unlink(missing_ok=True)
    run = subprocess.run(
        [sys.executable, PROGRAM, *folders.values()],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    for version, folder in folders.items():
        assert (folder / LOG).is_file(), run.stderr[-4000:]
        logs[version] = (folder / LOG).read_text(errors="replace")
    return logs


@pytest.mark.timeout(TIMEOUT_S + 60)
@pytest.mark.parametrize("version", RELEASES)
def test_the_scheduler_does_its_work_with_version(version, logs):
    log = logs[version]
    if log.startswith("cannot fetch"):
        pytest.skip(log)
    assert f"vLLM {version}\n" in log, log[-4000:]
    assert log.endswith("exit status 0\n"), log[-4000:]


def test_what_is_said_to_be_supported_is_what_is_tested():
    from replicas.scheduler import SUPPORTED_VLLM

    minors = [version.rpartition(".")[0] for version in RELEASES]
    assert f"{minors[0]} to {minors[-1]}" == SUPPORTED_VLLM
