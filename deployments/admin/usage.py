"""`fairlane usage`: what clients have used, by the day."""

from __future__ import annotations

import argparse
import json
from typing import Any

from deployments.admin.api import AdminApi, CommandError
from deployments.admin.arguments import day
from deployments.admin.tables import show

FIGURES = ("requests", "input_tokens", "cached_tokens", "output_tokens", "service", "waiting_s")
INCOMPLETE = "incomplete:"  # as router/admin/usage.py ends a CSV that breaks off


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of `fairlane usage`, besides what all such commands take."""
    parser.add_argument(
        "--from",
        type=day,
        metavar="DAY",
        help="the first, as 2026-11-30, in UTC; default: 30 in all",
    )
    parser.add_argument("--to", type=day, metavar="DAY", help="the last; default: today")
    parser.add_argument(
        "--by",
        default="day,client,model",
        help="what rows tell apart, of day, organisation, group, client, model (default: "
        "%(default)s); over the rest it is summed",
    )
    parser.add_argument(
        "--client", action="append", metavar="NAME", help="only this one; may be given again"
    )
    parser.add_argument("--group", help="only clients in it, or in a team of it")
    parser.add_argument("--csv", action="store_true", help="print CSV, for spreadsheets")


def usage(api: AdminApi, arguments: argparse.Namespace) -> None:
    """Print it as a table with its sum, as JSON, or as CSV. Raises CommandError."""
    names = ("from", "to", "by", "client", "group")
    query = {name: value for name in names if (value := getattr(arguments, name)) is not None}
    if arguments.csv:
        for line in api.lines("/usage", format="csv", **query):
            if line.startswith(INCOMPLETE):
                raise CommandError(line)
            print(line)
        return
    rows = list(api.pages("usage", **query))
    if arguments.json:
        print(json.dumps(rows, indent=2))
        return
    columns = [name for name in rows[0] if name not in FIGURES] if rows else []
    if columns and len(rows) > 1:
        rows.append(_sum(rows, columns))
    show(map(_readable, rows), (*columns, *FIGURES))


def _readable(row: dict[str, Any]) -> dict[str, Any]:
    return row | {name: f"{row[name]:.1f}" for name in ("service", "waiting_s")}


def _sum(rows: list[dict[str, Any]], columns: list[str]) -> dict[str, Any]:
    total = {name: sum(row[name] for row in rows) for name in FIGURES}
    return dict.fromkeys(columns, "") | {columns[0]: "in all"} | total
