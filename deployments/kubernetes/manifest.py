"""Manifests as a cluster would get them: rendered by kustomize, each with the file it is from."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ORIGIN = "config.kubernetes.io/origin"
GENERATED = "configuredIn"  # of an origin: by a generator of that kustomization


class RenderError(Exception):
    """Kustomize is not there, or refuses; the message is its own."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """content: as rendered. file: where it is written."""

    content: dict[str, Any]
    file: str

    @property
    def kind(self) -> str:
        """Its kind."""
        return str(self.content.get("kind"))

    @property
    def api(self) -> str:
        """Its apiVersion and kind."""
        return f"{self.content.get('apiVersion')}/{self.kind}"

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.content.get("metadata", {}).get("name"))

    @property
    def spec(self) -> dict[str, Any]:
        """Its spec; empty where there is none."""
        return dict(self.content.get("spec") or {})

    def problem(self, path: Sequence[str | int], what: str) -> str:
        """A line: file, object, field, what is wrong."""
        return f"{self.file}: {self.kind}/{self.name}: {dotted(path)}: {what}"


def dotted(path: Sequence[str | int]) -> str:
    """`spec.containers[0].name`."""
    shown = ""
    for part in path:
        shown += f"[{part}]" if isinstance(part, int) else f".{part}" if shown else part
    return shown


def kustomize() -> list[str]:
    """The command that renders: kustomize, or the one in kubectl. Raises RenderError."""
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    if shutil.which("kubectl"):
        return ["kubectl", "kustomize"]
    raise RenderError(
        "neither kubectl nor kustomize is on the PATH; install one (https://kubernetes.io/docs/tasks/"
        "tools/)"
    )


def render(overlay: Path) -> list[Manifest]:
    """What `kubectl apply -k` would send. Raises RenderError."""
    command = kustomize()
    with tempfile.TemporaryDirectory() as folder:
        # Around the overlay, so that everything is marked with its origin and nothing of that is
        # in what users apply.
        above = os.path.relpath(overlay.resolve(), Path(folder).resolve())
        wrapper = {"resources": [above], "buildMetadata": ["originAnnotations"]}
        (Path(folder) / "kustomization.yaml").write_text(yaml.safe_dump(wrapper))
        done = subprocess.run([*command, folder], capture_output=True, text=True, check=False)
        if done.returncode:
            raise RenderError(f"{overlay}: {done.stderr.strip()}")
        return [
            Manifest(content, _file(content, Path(folder), overlay))
            for content in yaml.safe_load_all(done.stdout)
            if content
        ]


def _file(content: dict[str, Any], folder: Path, overlay: Path) -> str:
    """Takes the mark off and reads it."""
    annotations = content["metadata"].get("annotations", {})
    origin = yaml.safe_load(annotations.pop(ORIGIN, "")) or {}
    if not annotations:
        content["metadata"].pop("annotations", None)
    path = origin.get("path") or origin.get(GENERATED)
    if path is None:
        return str(overlay)
    return os.path.relpath((folder / path).resolve())


def scalars(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every leaf of a document and the way to it."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from scalars(inner, (*path, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from scalars(inner, (*path, number))
    else:
        yield path, value
