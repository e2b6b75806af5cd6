"""What the dashboard ships: libraries as npm has them, nothing from elsewhere, no markup in
strings."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest

from router.dashboard import headers
from router.dashboard.static_files import static_files

FOLDER = Path(headers.__file__).parent
STATIC, WEB = FOLDER / "static", FOLDER / "web"
OURS = sorted(path for path in STATIC.iterdir() if path.suffix in (".js", ".html", ".css"))


def test_libraries_are_those_of_the_lock_file() -> None:
    """`npm run check` compares them with the packages themselves."""
    lock = json.loads((WEB / "package-lock.json").read_text())["packages"]
    wanted = json.loads((WEB / "package.json").read_text())["devDependencies"]
    manifest = json.loads((STATIC / "vendor" / "manifest.json").read_text())
    shipped = {path.name for path in (STATIC / "vendor").iterdir()} - {"manifest.json"}
    assert shipped == set(manifest)
    for name, told in manifest.items():
        locked = lock[f"node_modules/{told['package']}"]
        assert (told["version"], told["integrity"]) == (locked["version"], locked["integrity"])
        assert wanted[told["package"]] == told["version"]
        content = (STATIC / "vendor" / name).read_bytes()
        assert hashlib.sha256(content).hexdigest() == told["sha256"], f"{name}: npm run build"
    assert manifest["uplot.js"]["version"] in (STATIC / "vendor" / "uplot.js").read_text()[:100]


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_nothing_comes_from_elsewhere_and_texts_are_text(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"(?:https?:)?//[\w.-]+\.\w{2,}/", text)
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert word not in text
    if path.suffix == ".html":
        assert not re.findall(r"\s(?:on\w+|style)=", text)
        assert not re.findall(r"<script(?![^>]*src=)", text)
        assert not re.findall(r"<style", text)


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.name)
def test_what_a_file_names_is_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    named = re.findall(r'"/(?:dashboard|me)/static/([\w./-]+)"', text)
    named += [name for name in re.findall(r'from "\./([\w.]+)"', text)]
    assert set(named) <= set(static_files())


def test_the_policy_lets_nothing_in() -> None:
    parts = dict(part.split(" ", 1) for part in headers.POLICY.split("; "))
    assert parts["default-src"] == parts["frame-ancestors"] == parts["base-uri"] == "'none'"
    assert parts["script-src"] == parts["style-src"] == parts["connect-src"] == "'self'"
    assert "unsafe" not in headers.POLICY
