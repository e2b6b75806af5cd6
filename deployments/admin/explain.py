"""`fairlane explain` and `fairlane requests`: what became of requests, and why."""

from __future__ import annotations

import argparse
import json

from deployments.admin.api import AdminApi, path_of
from deployments.admin.tables import show

TIMES = ("waited_ms", "ended_ms")
COLUMNS = (
    *("request", "client", "model", "received_at", "state", "status", *TIMES),
    *("input_tokens", "output_tokens", "service", "replica"),
)


def explain(api: AdminApi, arguments: argparse.Namespace) -> None:
    """Print it in words, or as JSON. Raises CommandError."""
    told = api.ask("GET", path_of("explain", arguments.request))
    print(json.dumps(told, indent=2) if arguments.json else "\n".join(told["account"]))


def requests(api: AdminApi, arguments: argparse.Namespace) -> None:
    """Print them as a table, or as JSON. Raises CommandError."""
    query = {"client": arguments.client, "limit": arguments.limit}
    given = {name: value for name, value in query.items() if value is not None}
    rows = api.ask("GET", "/requests", params=given)["requests"]
    if arguments.json:
        print(json.dumps(rows, indent=2))
    elif rows:
        show((row | {name: _whole(row[name]) for name in TIMES} for row in rows), COLUMNS)
    else:
        of = f" of {arguments.client!r}" if arguments.client else ""
        print(f"No request{of} is remembered: routers keep the last ones only (docs/explain.md).")


def _whole(milliseconds: float | None) -> int | None:
    return None if milliseconds is None else round(milliseconds)
