"""`fairlane top`: who gets what, who waits, how the replicas are, live in the terminal."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from deployments.admin.api import DEFAULT_URL, URL_VARIABLE, AdminApi, CommandError, admin_key
from deployments.admin.watching import screen

EVERY_S = 2.0
WIDE = 120  # where there is no terminal to fit


def add_command(commands: Any) -> None:
    """Add `top` to the `fairlane` command."""
    top = commands.add_parser(
        "top",
        help="shares, counters, backlog and replicas, live in the terminal",
        description="Show each pool as it runs, as the dashboard does. Without a terminal it "
        "prints once. Needs an admin key.",
    )
    top.add_argument("--pool", help="only this model")
    top.add_argument("--clients", type=int, default=15, help="rows of clients (default 15)")
    top.add_argument("--once", action="store_true", help="print, and be done")
    top.add_argument("--json", action="store_true", help="print once, as JSON (pool: observation)")
    top.add_argument("--every", type=float, default=EVERY_S, help="seconds (default 2)")
    top.add_argument(
        "--base-url",
        default=os.environ.get(URL_VARIABLE, DEFAULT_URL),
        help=f"default: {URL_VARIABLE}, or {DEFAULT_URL}",
    )
    top.add_argument("--admin-key-file", type=Path, help="a file with the admin key")
    top.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Show; return an exit status."""
    try:
        api = AdminApi(arguments.base_url, admin_key(arguments.admin_key_file))
        try:
            return _show(api, arguments)
        finally:
            api.close()
    except CommandError as error:
        print(f"fairlane: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def _show(api: AdminApi, arguments: argparse.Namespace) -> int:
    pools = observed(api, arguments.pool)
    if arguments.json:
        print(json.dumps(pools))
        return 0
    console = Console(
        width=None if sys.stdout.isatty() else WIDE, markup=False, emoji=False, highlight=False
    )
    if arguments.once or not sys.stdout.isatty():
        console.print(drawn(pools, arguments.clients))
        return 0
    watch(console, lambda: observed(api, arguments.pool), arguments.clients, arguments.every)
    return 0


def observed(api: AdminApi, pool: str | None = None) -> dict[str, Any]:
    """Pool -> its last observation, or None. Raises CommandError."""
    pools: dict[str, Any] = api.ask("GET", "/live")
    if pool is None:
        return pools
    if pool not in pools:
        raise CommandError(f"there is no pool {pool!r}; there are: {', '.join(pools)}")
    return {pool: pools[pool]}


def drawn(pools: dict[str, Any], clients: int) -> Group:
    """All pools, one below the other."""
    return Group(*(screen(seen, pool, clients) for pool, seen in pools.items()))


def watch(
    console: Console, observe: Callable[[], dict[str, Any]], clients: int, every_s: float
) -> None:
    """Until Ctrl-C. A server that can't be reached is said so, and tried again."""
    shown: Group | Text = Text("…")
    with Live(shown, console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                shown = drawn(observe(), clients)
                live.update(shown, refresh=True)
            except CommandError as error:
                live.update(Group(shown, Text(f"\n{error}", style="red")), refresh=True)
            time.sleep(every_s)
