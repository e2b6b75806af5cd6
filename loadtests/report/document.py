"""What a report is made of: sections of text, tables and figures. Values only; no HTML here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Cell:
    """A number in a table: ours, others' beside it, and how far our runs spread (low, high)."""

    value: float | None
    beside: float | None = None
    spread: tuple[float, float] | None = None


Value = str | float | Cell | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column. best: which end is good, and gets marked; None: it is not a contest.

    digits: after the point; unit: shown in the heading.
    """

    name: str
    digits: int = 0
    best: Literal["low", "high"] | None = None
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its name and a value per column. ranks: whether its values may be the best."""

    name: str
    values: tuple[Value, ...]
    ranks: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """A table. first: the heading of the rows' names. note: how to read it.

    beside: whose numbers stand beside ours, e.g. "the paper's".
    """

    first: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""
    beside: str = "recorded"

    def __post_init__(self) -> None:
        wrong = [row.name for row in self.rows if len(row.values) != len(self.columns)]
        if wrong:
            raise ValueError(f"rows without a value for each column: {', '.join(wrong)}")

    def best(self, column: int) -> float | None:
        """Return the best value of a column as it is shown, None where nothing is contested."""
        end = self.columns[column].best
        shown = [
            round(number, self.columns[column].digits)
            for row in self.rows
            if row.ranks and (number := number_in(row.values[column])) is not None
        ]
        if end is None or len(shown) < 2:
            return None
        return min(shown) if end == "low" else max(shown)


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: SVG, and what it shows in words for who can't see it."""

    svg: str
    says: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """Panels that belong together, side by side where there is room."""

    panels: tuple[Panel, ...]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what is under it: a string is a paragraph."""

    heading: str
    blocks: tuple[str | Table | Figure, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A whole report. lead: what was found, in a sentence or two. facts: small print on the run.

    numbers: the figures that matter most, by name; they go to JSON as they are.
    """

    title: str
    lead: str
    sections: Sequence[Section]
    facts: Sequence[str] = ()
    numbers: dict[str, Any] = field(default_factory=dict)


def number_in(value: Value) -> float | None:
    """Return the number that a value of a table is, None for text and blanks."""
    if isinstance(value, Cell):
        return value.value
    return value if isinstance(value, int | float) else None


def as_json(report: Report) -> dict[str, Any]:
    """Return a report as plain values; pictures are left out."""
    return {
        "title": report.title,
        "lead": report.lead,
        "facts": list(report.facts),
        "numbers": report.numbers,
        "sections": [
            {
                "heading": section.heading,
                "text": [block for block in section.blocks if isinstance(block, str)],
                "tables": [_table(block) for block in section.blocks if isinstance(block, Table)],
            }
            for section in report.sections
        ],
    }


def _table(table: Table) -> dict[str, Any]:
    names = [column.name for column in table.columns]
    return {
        "note": table.note,
        "beside": table.beside,
        "units": {column.name: column.unit for column in table.columns if column.unit},
        "rows": [
            {table.first: row.name}
            | {name: _plain(value) for name, value in zip(names, row.values, strict=True)}
            for row in table.rows
        ],
    }


def _plain(value: Value) -> Any:
    if not isinstance(value, Cell):
        return value
    plain: dict[str, Any] = {"value": value.value}
    if value.beside is not None:
        plain["beside"] = value.beside
    if value.spread is not None:
        plain["spread"] = list(value.spread)
    return plain
