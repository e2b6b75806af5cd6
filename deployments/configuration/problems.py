"""What is wrong with a configuration, and what to do: one line a problem.

What was written in the field is never repeated: it may be a secret.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from pydantic import BaseModel, ValidationError

from deployments.configuration.fields import Loc, field_at, model_at, shown


@dataclass(frozen=True, slots=True)
class Problem:
    """loc: the field. what: is wrong. mend: what to do, or "" where `what` says it."""

    loc: Loc
    what: str
    mend: str = ""

    def __str__(self) -> str:
        where = f"{shown(self.loc)}: " if self.loc else ""
        return f"{where}{self.said()}"

    def said(self) -> str:
        """It without its place."""
        return f"{self.what}; {self.mend}" if self.mend else self.what


class UnsoundError(ValueError):
    """A configuration with problems."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__("\n  ".join(map(str, problems)))
        self.problems = problems

    def __reduce__(self) -> tuple[type[UnsoundError], tuple[Problem, ...]]:
        return UnsoundError, self.problems


def problems_of(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Everything that pydantic has found in a `model`."""
    found: list[Problem] = []
    errors = error.errors(include_url=False, include_input=False)
    for details in errors:
        loc = details["loc"]
        if details["type"] == "too_short" and any(
            other["loc"][: len(loc)] == loc and other is not details for other in errors
        ):
            continue  # pydantic counts the sound items only
        cause = details.get("ctx", {}).get("error")
        if isinstance(cause, UnsoundError):
            found += [replace(problem, loc=loc + problem.loc) for problem in cause.problems]
        else:
            found.append(_problem(details["type"], loc, details["msg"], model))
    return found


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """What to do about a name that is none of those known."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, 1)
    return f"did you mean `{close[0]}`?" if close else f"there are: {', '.join(known)}"


def _problem(kind: str, loc: Loc, message: str, model: type[BaseModel]) -> Problem:
    field = field_at(model, loc)
    hint = _in_a_line(field.description if field is not None else None)
    if kind == "extra_forbidden":
        parent = model_at(model, loc[:-1])
        known = () if parent is None else parent.model_fields
        return Problem(loc, "unknown field", did_you_mean(str(loc[-1]), known))
    if kind == "missing":
        return Problem(loc, "is missing", f"give it: {hint}" if hint else "give it")
    if kind in ("value_error", "assertion_error"):
        said = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
        return Problem(loc, said.removeprefix(f"{shown(loc)}: "))
    if kind in ("model_type", "dict_type"):
        return Problem(loc, "should have fields", "write each as `name: value`")
    if kind == "string_pattern_mismatch":
        return Problem(loc, "does not match the pattern", hint)  # which would be hard to read
    for beginning in ("Input ", "String ", "Tuple "):
        message = message.removeprefix(beginning)
    return Problem(loc, message.removesuffix(" after validation, not 0"), hint)


def _in_a_line(description: str | None) -> str:
    """A field's description after a semicolon, without the links of the reference page."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", description or "").removesuffix(".")
    return text if text[:2].isupper() else text[:1].lower() + text[1:]
