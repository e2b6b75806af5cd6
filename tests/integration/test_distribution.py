"""The sdist and the wheel, installed into a clean environment and used outside the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("deployments", "fairness", "loadtests", "replicas", "router")
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
NOT_SHIPPED = (".sh", ".Dockerfile")  # of use in a checkout only


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output; fails the test with all output when the command does."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "REDIS_URL")
    }
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=cwd, env=environment, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked(*folders: str) -> list[str]:
    return run("git", "ls-files", "-co", "--exclude-standard", *folders, cwd=ROOT).splitlines()


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both, made as `make dist` makes them."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in tracked():
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name)
    made = checkout / "dist"
    code = "import setuptools.build_meta as backend; backend.build_sdist('dist')"
    run(sys.executable, "-c", code, cwd=checkout)
    (sdist,) = made.glob("*.tar.gz")
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation")
    run(*pip, "-w", made, sdist, cwd=checkout)
    return made


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def clean(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment with the wheel and what it depends on, but not the checkout: the
    dependencies are those of this environment, as installing them takes minutes."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=False)
    (site,) = folder.glob("lib/python*/site-packages")
    pip = (sys.executable, "-m", "pip", "install", "-q", "--no-deps")
    run(*pip, "--target", site, wheel, cwd=folder)
    # A path in a .pth file is searched, but .pth files there (the editable install) are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin"


def test_the_wheel_has_every_file_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    lacking = [
        name
        for name in tracked(*PACKAGES)
        if name not in inside and not name.endswith(NOT_SHIPPED) and (ROOT / name).is_file()
    ]
    assert lacking == []
    assert not [name for name in inside if name.startswith(("tests/", "k8s/", "docs/"))]


def test_the_sdist_has_all_that_a_checkout_has(dist: Path) -> None:
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    lacking = [
        name
        for name in tracked()
        if name not in inside and name != ".gitignore" and (ROOT / name).is_file()
    ]
    assert lacking == []


def test_the_changelog_tells_of_the_version() -> None:
    assert f"\n## {VERSION}" in (ROOT / "CHANGELOG.md").read_text()


def test_it_runs_outside_the_checkout(clean: Path, tmp_path: Path) -> None:
    python = clean / "python"
    code = """
import deployments.cli, fairness, loadtests, replicas, router, sys
from importlib.metadata import version
from fairness.store import redis_store
print(version("fairlane"))
print(deployments.cli.__file__)
"""
    shown, where = run(python, "-c", code, cwd=tmp_path).split()
    assert shown == VERSION
    assert Path(where).is_relative_to(clean.parent)
    fairlane = (python, "-m", "deployments.cli")
    assert "doctor" in run(*fairlane, "--help", cwd=tmp_path)
    run(*fairlane, "config", "check", cwd=tmp_path)  # of the local.yaml in the wheel
    assert '"$schema"' in run(*fairlane, "config", "schema", cwd=tmp_path)
    told = run(*fairlane, "doctor", "--only", "configuration,store", cwd=tmp_path)
    assert "all is well" in told


def test_its_scripts_run_in_a_real_store(clean: Path, tmp_path: Path, valkey_url: str) -> None:
    code = f"""
import asyncio
from fairness.cost import ServiceCost
from fairness.store.contract import Call, QueueSettings, Sender
from fairness.store.locate import LocatedQueue

async def main():
    queue = await LocatedQueue.open({valkey_url!r}, "wheel", QueueSettings(ServiceCost()))
    call = Call()
    call.submit("r1", "alice", 1.0, 100)
    await queue.execute(Sender("router", "router-1"), call)
    print([state.client for state in await queue.clients()])
    await queue.aclose()

asyncio.run(main())
"""
    assert run(clean / "python", "-c", code, cwd=tmp_path) == "['alice']\n"
