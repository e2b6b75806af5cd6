"""The examples in the documentation that talk to `make serve`, so that tests can run them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
ADDRESS = "http://127.0.0.1:8000"
LANGUAGES = ("sh", "python", "js")

_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`(curl [^`]+)`(?!`)")


@dataclass(frozen=True, slots=True)
class Recipe:
    """where: file and line. language: one of LANGUAGES."""

    where: str
    language: str
    text: str


def recipes(folder: Path = ROOT) -> Iterator[Recipe]:
    """Each fenced block in one of the languages, and each `curl` in a line of text, that names
    the address of `make serve`."""
    for path in (folder / "README.md", folder / "SECURITY.md", *sorted(folder.glob("docs/*.md"))):
        page = path.read_text(encoding="utf-8")
        blocks = [(match.start(), match[1], match[2]) for match in _FENCED.finditer(page)]
        inline = [(match.start(), "sh", match[1]) for match in _INLINE.finditer(page)]
        for start, language, text in sorted(blocks + inline):
            if language in LANGUAGES and ADDRESS in text:
                line = page.count("\n", 0, start) + 1
                yield Recipe(f"{path.name}:{line}", language, text)
