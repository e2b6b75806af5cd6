"""`fairlane config`: check a file, or print what can stand in one."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any


def add_commands(commands: Any, local: Path) -> None:
    """Add `config` to the subcommands of `fairlane`. local: the file that is checked by default."""
    family = commands.add_parser(
        "config",
        help="check a Serve config file; what can stand in one",
        description="Nothing is started, and nothing is asked of a running application.",
    )
    what = family.add_subparsers(dest="what", required=True, metavar="WHAT")

    check = what.add_parser(
        "check",
        help="name every problem of a file and its mend",
        description="Prints a line a problem: file, line, field, what is wrong, what to do. Values "
        "are never shown. Exits with 1 when there are any.",
    )
    check.add_argument(
        "config", nargs="?", type=Path, default=local, help="a Serve config file (local.yaml)"
    )
    check.set_defaults(run=_check)

    schema = what.add_parser(
        "schema",
        help="the JSON schema of a Serve config file",
        description="Prints the JSON schema of a Serve config file with Fairlane in it, as in "
        "deployments/config.schema.json.",
    )
    schema.add_argument("--args", action="store_true", help="of the application's args alone")
    schema.set_defaults(run=_schema)

    reference = what.add_parser(
        "reference",
        help="every field, as a Markdown table",
        description="Prints the table of docs/configuration.md.",
    )
    reference.set_defaults(run=_reference)


def _check(arguments: argparse.Namespace) -> int:
    from deployments.configuration.file import ServeFile, UnsoundFileError

    try:
        problems = ServeFile.read(arguments.config).check()
    except UnsoundFileError as error:
        problems = list(error.lines)
    for line in problems:
        print(line)
    if not problems:
        print(f"{arguments.config}: no problems", file=sys.stderr)
    return 1 if problems else 0


def _schema(arguments: argparse.Namespace) -> int:
    from deployments.configuration.schema import args_schema, file_schema, schema_text

    print(schema_text(args_schema() if arguments.args else file_schema()), end="")
    return 0


def _reference(_: argparse.Namespace) -> int:
    from deployments.configuration.reference import table

    print(table())
    return 0
