"""`fairlane shadow`: what VTC would have changed (docs/shadow.md)."""

from __future__ import annotations

import argparse
import json

from deployments.admin.api import AdminApi
from deployments.admin.tables import show

COLUMNS = ("client", "grants", "went_ahead", "passed_over", "service_ahead", "service_passed")


def shadow(api: AdminApi, arguments: argparse.Namespace) -> None:
    """The command."""
    found = api.ask("GET", "/queue/clients")
    summary = found["shadow"]
    rows = [{"client": row["client"], **(row["shadow"] or {})} for row in found["clients"]]
    if arguments.json:
        print(json.dumps({"shadow": summary, "clients": rows if summary else []}, indent=2))
        return
    if summary is None:
        print("The policy `shadow` was never switched on here: docs/shadow.md tells how.")
        return
    print(
        f"Since {summary['since']}: {summary['grants']} grants, "
        f"{summary['out_of_turn']} of them ({summary['share']:.1%}) out of turn."
    )
    for when in ("sooner", "later"):
        named = [f"{row['client']} ({row['service']:.0f})" for row in summary[when]]
        print(f"Served {when} under vtc, by service: {', '.join(named) or 'nobody'}.")
    print()
    noted = [row for row in rows if row["grants"] or row["passed_over"]]
    show(sorted(noted, key=lambda row: row["service_ahead"] - row["service_passed"]), COLUMNS)
