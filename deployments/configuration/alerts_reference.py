"""The page of alerts, made of their rules: `docs/alerts.md`.

`python -m deployments.configuration.alerts_reference` (`make docs`) writes it. What to do stands in
each rule's annotation `runbook`, so that whoever is paged has it in the message; the page is for
those who read in advance.
"""

from __future__ import annotations

from typing import Any

import yaml

from deployments.config import CHECKOUT

RULES = CHECKOUT / "deployments" / "observability" / "alerts.yaml"
PAGE = CHECKOUT / "docs" / "alerts.md"
HEAD = """# Alerts: what each means, and what to do

Made of `deployments/observability/alerts.yaml` by `make docs`. *Critical*: clients are
without service, or a promise is broken; somebody must come. *Warning*: look at it today. How to
load the rules is in [observability.md](observability.md).
"""


def page() -> str:
    """Every alert: when it fires, what that means, and what to do."""
    groups = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    return "\n".join([HEAD, *(_entry(rule) for group in groups for rule in group["rules"])])


def _entry(rule: dict[str, Any]) -> str:
    expression = "\n".join(line.rstrip() for line in rule["expr"].strip().splitlines())
    return (
        f"## {rule['alert']}\n\n"
        f"*{rule['labels']['severity'].capitalize()}*, after {rule['for']} of\n\n"
        f"```promql\n{expression}\n```\n\n"
        f"> {rule['annotations']['summary']}\n\n"
        f"{rule['annotations']['runbook'].strip()}\n"
    )


def write() -> None:
    """The page, anew."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    write()
