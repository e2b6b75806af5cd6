"""`fairlane classes`: priority classes, and what each is owed now."""

from __future__ import annotations

import argparse
import json

from deployments.admin.api import AdminApi
from deployments.admin.tables import show

COLUMNS = ("model", "name", "floor", "owed", "waiting", "running")


def classes(api: AdminApi, arguments: argparse.Namespace) -> None:
    """The command."""
    found = api.ask("GET", "/queue/classes")
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    rows = [{"model": model, **row} for model, of in found.items() for row in of]
    if not rows:
        print("There are no priority classes: `classes` of the configuration makes them.")
        return
    show(rows, COLUMNS)
