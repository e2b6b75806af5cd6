"""What a check has found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """How bad it is. Only FAILED makes the command fail."""

    OK = "ok"
    WARNING = "warning"  # it will run, though not as it should
    FAILED = "failed"  # it will not run
    SKIPPED = "skipped"  # it could not be looked at


@dataclass(frozen=True, slots=True)
class Finding:
    """about: what was looked at. found: what is there. mend: what to do, "" where it is well."""

    area: str
    about: str
    state: State
    found: str
    mend: str = ""
