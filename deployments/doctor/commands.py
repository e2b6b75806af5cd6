"""`fairlane doctor`: run the checks, show what they found."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deployments.doctor.finding import Finding, State

if TYPE_CHECKING:
    from deployments.configuration.file import ServeFile

AREAS = ("software", "machine", "configuration", "store", "application")
MARKS = {State.OK: "ok", State.WARNING: "!!", State.FAILED: "XX", State.SKIPPED: "--"}
DESCRIPTION = (
    "Look at this machine (packages, limits, ports), at a Serve config file and the store that it "
    "names, and, with --url, at a running application. Nothing is changed. Exits with 1 when "
    "something has failed; warnings are for you to weigh."
)


def add_command(commands: Any, local: Path) -> None:
    """Add `doctor` to the subcommands of `fairlane`. local: the file that is checked by default."""
    doctor = commands.add_parser(
        "doctor",
        help="what is missing here, and how to mend it",
        description=DESCRIPTION,
    )
    doctor.add_argument(
        "config", nargs="?", type=Path, default=local, help="a Serve config file (local.yaml)"
    )
    doctor.add_argument("--url", help="of a running application, to be looked at as well")
    doctor.add_argument("--admin-url", help="of its admin API, if that has a port of its own")
    doctor.add_argument(
        "--only",
        type=_areas,
        default=AREAS,
        metavar="AREA[,AREA]",
        help=f"of {', '.join(AREAS)} (default: all)",
    )
    doctor.add_argument("--json", action="store_true", help="for scripts")
    doctor.set_defaults(run=_doctor)


def _areas(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = sorted(set(names) - set(AREAS))
    if unknown:
        raise argparse.ArgumentTypeError(
            f"no area {', '.join(unknown)}; there are {', '.join(AREAS)}"
        )
    return names


def _doctor(arguments: argparse.Namespace) -> int:
    found = list(_look(arguments))
    failed = any(finding.state is State.FAILED for finding in found)
    if arguments.json:
        findings = [dataclasses.asdict(finding) for finding in found]
        print(json.dumps({"ok": not failed, "findings": findings}, indent=2))
    else:
        _show(found)
    return 1 if failed else 0


def _look(arguments: argparse.Namespace) -> Iterator[Finding]:
    only = set(arguments.only)
    if "software" in only:
        from deployments.doctor import software

        yield from software.look()
    file = None
    if only & {"machine", "configuration", "store"}:
        yield from (found := _configuration(arguments.config))
        if not any(finding.state is State.FAILED for finding in found):
            from deployments.configuration.file import ServeFile

            file = ServeFile.read(arguments.config)
    if "machine" in only:
        from deployments.doctor import machine

        yield from machine.look(*_ports(file))
    if "store" in only and file is not None:
        from deployments.doctor import store

        yield from store.look(file.config().store.settings())
    if "application" in only and not arguments.url:
        yield Finding("application", "address", State.SKIPPED, "none was given", "give --url")
    elif "application" in only:
        from deployments.doctor import application

        url = arguments.url.rstrip("/")
        admin_url = (arguments.admin_url or url).rstrip("/")
        key = os.environ.get("FAIRLANE_ADMIN_KEY", "").strip() or None
        yield from application.look(url, admin_url, key)


def _configuration(path: Path) -> list[Finding]:
    """As `fairlane config check`."""
    from deployments.configuration.file import ServeFile, UnsoundFileError

    try:
        problems = ServeFile.read(path).check()
    except UnsoundFileError as error:
        problems = list(error.lines)
    area, about = "configuration", path.name
    if not problems:
        return [Finding(area, about, State.OK, "no problems")]
    mend = "mend it, then: fairlane config check"
    return [Finding(area, about, State.FAILED, problem, mend) for problem in problems]


def _ports(file: ServeFile | None) -> tuple[int | None, int | None]:
    """Of HTTP and of the admin API."""
    if file is None:
        return None, None
    http = file.content.get("http_options") or {}
    return int(http.get("port", 8000)), file.config().admin.port


def _show(found: list[Finding]) -> None:
    for area, findings in groupby(found, key=lambda finding: finding.area):
        print(area)
        for finding in findings:
            print(f"  {MARKS[finding.state]}  {finding.about}: {finding.found}")
            if finding.mend and finding.state is not State.OK:
                print(f"        {finding.mend}")
    counts = {state: sum(finding.state is state for finding in found) for state in State}
    summary = f"{counts[State.FAILED]} failed, {counts[State.WARNING]} warnings"
    print(f"\n{summary}" if any((counts[State.FAILED], counts[State.WARNING])) else "\nall is well")
    sys.stdout.flush()
