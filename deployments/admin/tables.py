"""Answers of the admin API as tables for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

WIDE = 240  # where there is no terminal to fit

CLIENT_COLUMNS = (
    *("name", "weight", "group", "priority_class", "enabled", "limits", "created_at", "source"),
)
GROUP_COLUMNS = ("name", "weight", "limits", "created_at", "source")
KEY_COLUMNS = ("id", "label", "state", "created_at", "expires_at", "source")
EVENT_COLUMNS = ("at", "what", "subject", "key", "by", "origin", "detail")


def show(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> None:
    """Print a table on standard output."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.removesuffix("_at"), overflow="fold")
    for row in rows:
        table.add_row(*(_text(row[column]) for column in columns))
    width = None if sys.stdout.isatty() else WIDE
    Console(width=width, markup=False, emoji=False, highlight=False).print(table)


def _text(value: Any) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case float():
            return str(int(value)) if value.is_integer() else f"{value:g}"
        case dict():
            return " ".join(f"{name}={_text(part)}" for name, part in value.items())
    return _moment(str(value))


def _moment(text: str) -> str:
    """Times by the clock on the wall; days and other text as they are."""
    if "T" not in text:
        return text
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return text
