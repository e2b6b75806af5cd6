"""Runs in files, so that systems measured one after another can be reported side by side.

A file is JSON: the run's own fields, and one row per outcome under ``columns``, a request's
fields first. Requests that were never made have no outcome and are not kept.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from loadtests.outcome import Outcome, Run
from loadtests.workloads.workload import Request, Workload

FORMAT = "fairlane run 1"
_REQUEST = tuple(field.name for field in fields(Request))
_OUTCOME = tuple(field.name for field in fields(Outcome) if field.name != "request")


class NotARun(ValueError):
    """The file holds no run."""


def as_json(run: Run) -> dict[str, Any]:
    """Return a run as plain values."""
    return {
        "format": FORMAT,
        "system": run.system,
        "workload": run.workload.name,
        "weights": dict(run.workload.weights),
        "replicas": run.replicas,
        "seed": run.seed,
        "makespan": run.makespan,
        "numbers": run.numbers,
        "columns": [*_REQUEST, *_OUTCOME],
        "outcomes": [
            [
                *(getattr(outcome.request, name) for name in _REQUEST),
                *(getattr(outcome, name) for name in _OUTCOME),
            ]
            for outcome in run.outcomes
        ],
    }


def from_json(content: Any) -> Run:
    """Return the run that `as_json` wrote. Raises NotARun."""
    try:
        if content["format"] != FORMAT:
            raise NotARun(f"its format is {content['format']!r}, not {FORMAT!r}")
        outcomes = tuple(_outcome(content["columns"], row) for row in content["outcomes"])
        workload = Workload(
            content["workload"],
            tuple(outcome.request for outcome in outcomes),
            content["weights"],
        )
        return Run(
            workload=workload,
            system=content["system"],
            replicas=content["replicas"],
            outcomes=outcomes,
            makespan=content["makespan"],
            seed=content["seed"],
            numbers=content["numbers"],
        )
    except (KeyError, TypeError) as error:
        raise NotARun(f"no run of Fairlane's load test: {error!r}") from None


def _outcome(columns: list[str], row: list[Any]) -> Outcome:
    values = dict(zip(columns, row, strict=True))
    request = Request(**{name: values[name] for name in _REQUEST})
    return Outcome(request, **{name: values[name] for name in _OUTCOME})


def save(run: Run, path: Path) -> None:
    """Write a run to a file."""
    path.write_text(json.dumps(as_json(run), separators=(",", ":")) + "\n", encoding="utf-8")


def load(path: Path) -> Run:
    """Read a run from a file. Raises NotARun, OSError."""
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise NotARun(f"{path}: {error}") from None
