"""A report as one HTML file: style and pictures inside, no script, nothing from the network."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from pathlib import Path

from loadtests.report.document import (
    Cell,
    Figure,
    Report,
    Row,
    Section,
    Table,
    Value,
    as_json,
    number_in,
)


def save(report: Report, folder: Path, name: str) -> tuple[Path, Path]:
    """Write ``name.html`` and ``name.json`` into a folder; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    html, data = folder / f"{name}.html", folder / f"{name}.json"
    html.write_text(page(report), encoding="utf-8")
    data.write_text(json.dumps(as_json(report), indent=2) + "\n", encoding="utf-8")
    return html, data


def page(report: Report) -> str:
    """Return a report as an HTML document."""
    style = (files("loadtests.report") / "report.css").read_text(encoding="utf-8")
    contents = "".join(
        f'<li><a href="#s{number}">{escape(section.heading)}</a></li>'
        for number, section in enumerate(report.sections)
    )
    facts = "".join(f"<li>{escape(fact)}</li>" for fact in report.facts)
    body = "\n".join(_section(number, section) for number, section in enumerate(report.sections))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(report.title)}</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{escape(report.title)}</h1>
<p class="lead">{escape(report.lead)}</p>
<nav aria-label="Sections"><ul>{contents}</ul></nav>
</header>
<main>
{body}
</main>
<footer><ul>{facts}</ul></footer>
</body>
</html>
"""


def _section(number: int, section: Section) -> str:
    blocks = "\n".join(_block(block, f"s{number}b{k}") for k, block in enumerate(section.blocks))
    heading = escape(section.heading)
    title = f'<h2 id="s{number}">{heading}</h2>'
    return f'<section aria-labelledby="s{number}">\n{title}\n{blocks}\n</section>'


def _block(block: str | Table | Figure, name: str) -> str:
    if isinstance(block, str):
        return f"<p>{escape(block)}</p>"
    return _table(block, name) if isinstance(block, Table) else _figure(block)


def _figure(figure: Figure) -> str:
    panels = "\n".join(
        f'<div class="panel">{f"<h3>{escape(panel.title)}</h3>" if panel.title else ""}'
        f'<div class="picture" role="img" aria-label="{escape(panel.says)}">{panel.svg}</div></div>'
        for panel in figure.panels
    )
    caption = f"<figcaption>{escape(figure.caption)}</figcaption>" if figure.caption else ""
    return f'<figure><div class="panels">\n{panels}\n</div>{caption}</figure>'


def _table(table: Table, name: str) -> str:
    heads = "".join(
        f'<th scope="col">{escape(column.name)}'
        + (f' <span class="unit">{escape(column.unit)}</span>' if column.unit else "")
        + "</th>"
        for column in table.columns
    )
    best = [table.best(k) for k in range(len(table.columns))]
    rows = "\n".join(_row(table, row, best) for row in table.rows)
    note = f'<p class="note" id="{name}">{escape(table.note)}</p>' if table.note else ""
    described = f' aria-describedby="{name}"' if table.note else ""
    # A region that scrolls must be reachable by keyboard.
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="Table: {escape(table.first)}">'
        f"<table{described}><thead><tr>"
        f'<th scope="col">{escape(table.first)}</th>{heads}</tr></thead>\n<tbody>\n{rows}\n'
        f"</tbody></table></div>{note}"
    )


def _row(table: Table, row: Row, best: list[float | None]) -> str:
    cells = []
    for column, value, winner in zip(table.columns, row.values, best, strict=True):
        number = number_in(value)
        wins = (
            row.ranks
            and winner is not None
            and number is not None
            and round(number, column.digits) == winner
        )
        cells.append(_cell(value, column.digits, wins, table.beside))
    return f'<tr><th scope="row">{escape(row.name)}</th>{"".join(cells)}</tr>'


def _cell(value: Value, digits: int, wins: bool, beside: str) -> str:
    if isinstance(value, str):
        return f'<td class="text">{escape(value)}</td>'
    text = _number(number_in(value), digits)
    if wins:
        text = f'<strong>{text}</strong><span class="hidden"> (best)</span>'
    if isinstance(value, Cell):
        if value.spread is not None:
            low, high = (_number(end, digits) for end in value.spread)
            if low != high:
                text += f'<small class="spread">{low} to {high}</small>'
        if value.beside is not None:
            theirs = _number(value.beside, digits)
            text += f'<small class="beside">{escape(beside)} {theirs}</small>'
    return f"<td{' class=best' if wins else ''}>{text}</td>"


def _number(value: float | None, digits: int) -> str:
    if value is None:
        return '<span class="none">&ndash;</span>'
    return f"{value:,.{digits}f}"
