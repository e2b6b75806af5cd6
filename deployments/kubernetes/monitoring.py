"""What the Prometheus operator and Grafana's sidecar get, made of the files that others use:
`python -m deployments.kubernetes.monitoring` (part of `make docs`).
"""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "observability"
FOLDER = Path(__file__).parents[2] / "k8s/components/monitoring"
HEADER = """\
# Made of deployments/observability/alerts.yaml by `make docs`.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: fairlane
  labels: {app.kubernetes.io/part-of: fairlane}
spec:
"""


def rules(alerts: str) -> str:
    """A PrometheusRule of the text of a file of rules, whose `groups` its `spec` is."""
    return HEADER + textwrap.indent(alerts[alerts.index("groups:") :], "  ")


def write(source: Path = SOURCE, folder: Path = FOLDER) -> None:
    """Both files."""
    alerts = (source / "alerts.yaml").read_text(encoding="utf-8")
    (folder / "rules.yaml").write_text(rules(alerts), encoding="utf-8")
    shutil.copyfile(source / "dashboard.json", folder / "dashboard.json")


if __name__ == "__main__":
    write()
