"""The reference of the configuration, made of its models: tables for people, a schema for editors.

`python -m deployments.configuration.reference` (`make docs`) writes both.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic.fields import FieldInfo

from deployments.config import CHECKOUT, AppConfig, LiveConfig
from deployments.configuration.fields import leaves
from deployments.configuration.schema import SCHEMA, file_schema, schema_text

PAGE = CHECKOUT / "docs" / "configuration.md"
BEGIN = "<!-- `make docs` writes this table from the models in deployments/config.py -->"
END = "<!-- the end of what it writes -->"


def table() -> str:
    """Every field: its default, what a change of it takes, its meaning."""
    live = {name for name, _ in leaves(LiveConfig)}
    lines = ["| field | default | change | meaning |", "| --- | --- | --- | --- |"]
    for name, field in leaves(AppConfig):
        change = "live" if name in live else "restart"
        meaning = (field.description or "").removesuffix(".").replace("|", "\\|")
        lines.append(f"| `{name}` | {_default(field)} | {change} | {meaning} |")
    return "\n".join(lines)


def _default(field: FieldInfo) -> str:
    value = field.get_default()
    if field.is_required():
        return "-"
    if value is None or value == ():
        return "none"
    if isinstance(value, int) and value >= 2**20 and value % 2**20 == 0:
        return f"{value} ({value // 2**20} MiB)"
    return f"`{value}`" if isinstance(value, str) else json.dumps(value).removesuffix(".0")


def renewed(page: str) -> str:
    """The page with the table that the models make. Raises ValueError where it has no place."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no place for the table: {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


def write(page: Path = PAGE, schema: Path = SCHEMA) -> None:
    """Both files, anew."""
    page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")
    schema.write_text(schema_text(file_schema()), encoding="utf-8")


if __name__ == "__main__":
    write()
