"""The Grafana dashboard, made of `panels.py`: `python -m deployments.observability.dashboard`.

(Three kinds of small dictionaries: Grafana's SDK would be more code to call than this is.)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deployments.observability.panels import ROWS, Panel, Row

FILE = Path(__file__).with_name("dashboard.json")
WIDTH, HEIGHT, ACROSS = 8, 8, 3  # of Grafana's 24 columns
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard() -> dict[str, Any]:
    """What Grafana imports (schema 39: Grafana 10.4 and later)."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in ROWS:
        panels += _row(row, y, first_id=len(panels) + 1)
        y += 1 + HEIGHT * -(-len(row.panels) // ACROSS)
    return {
        "uid": "fairlane",
        "title": "Fairlane",
        "description": "Fair sharing of LLM replicas: who receives what, who waits, and why.",
        "tags": ["fairlane", "llm"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": _variables()},
        "panels": panels,
    }


def _variables() -> list[dict[str, Any]]:
    return [
        {
            "name": "datasource",
            "label": "Prometheus",
            "type": "datasource",
            "query": "prometheus",
            "current": {},
        },
        _label("pool", "Pool", "ray_fairlane_store_up"),
        _label("client", "Client", 'ray_fairlane_client_service_per_second{pool=~"$pool"}'),
    ]


def _label(name: str, title: str, series: str) -> dict[str, Any]:
    query = f"label_values({series}, {name})"
    return {
        "name": name,
        "label": title,
        "type": "query",
        "datasource": SOURCE,
        "definition": query,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _row(row: Row, y: int, first_id: int) -> list[dict[str, Any]]:
    head = {
        "id": first_id,
        "type": "row",
        "title": row.title,
        "collapsed": False,
        "gridPos": {"h": 1, "w": 24, "x": 0, "y": y},
        "panels": [],
    }
    panels = [
        _panel(panel, first_id + 1 + i, WIDTH * (i % ACROSS), y + 1 + HEIGHT * (i // ACROSS))
        for i, panel in enumerate(row.panels)
    ]
    return [head, *panels]


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    look: dict[str, Any] = {"lineWidth": 1, "fillOpacity": 30 if panel.stacked else 5}
    if panel.stacked:
        look["stacking"] = {"mode": "normal", "group": "A"}
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "custom": look}
    if panel.top is not None:
        defaults["max"] = panel.top
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": {"h": HEIGHT, "w": WIDTH, "x": x, "y": y},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {
                "refId": chr(ord("A") + i),
                "datasource": SOURCE,
                "expr": query.expression,
                "legendFormat": query.legend,
            }
            for i, query in enumerate(panel.queries)
        ],
    }


def text() -> str:
    """The file."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
