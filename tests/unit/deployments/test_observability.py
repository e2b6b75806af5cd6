"""The dashboard, the alert rules and the page of metrics fit the metrics that there are."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.configuration import alerts_reference, metrics_reference
from deployments.configuration.metrics_reference import PREFIX, all_metrics
from deployments.observability import dashboard
from deployments.observability.panels import ROWS

FOLDER = Path(dashboard.__file__).parent
ALERTS = FOLDER / "alerts.yaml"
EXPORTED = {PREFIX + metric.name: metric for metric in all_metrics()}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> list[str]:
    panels = (panel for row in ROWS for panel in row.panels)
    return [q.expression for panel in panels for q in panel.queries] + [r["expr"] for r in rules()]


def test_the_page_of_metrics_is_current() -> None:
    page = metrics_reference.PAGE.read_text(encoding="utf-8")
    assert metrics_reference.renewed(page) == page, "run `make docs`"


def test_the_page_of_alerts_is_current() -> None:
    page = alerts_reference.PAGE.read_text(encoding="utf-8")
    assert alerts_reference.page() == page, "run `make docs`"
    assert all(f"## {rule['alert']}\n" in page for rule in rules())


def test_the_dashboard_is_current() -> None:
    assert dashboard.FILE.read_text(encoding="utf-8") == dashboard.text(), "run `make docs`"


def test_names_and_units_are_as_prometheus_has_them() -> None:
    assert len(EXPORTED) == len(all_metrics())
    for metric in all_metrics():
        assert re.fullmatch(r"fairlane_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert bool(metric.buckets) == (metric.kind == "histogram")
        assert metric.help.endswith(".")
        assert sorted(metric.buckets) == list(metric.buckets)


def test_queries_ask_for_metrics_and_labels_that_there_are() -> None:
    used = set()
    for expression in expressions():
        for name in re.findall(r"ray_\w+", expression):
            base = re.sub(r"_(bucket|count|sum)$", "", name)
            assert name in EXPORTED or EXPORTED[base].kind == "histogram", name
            used.add(base if base in EXPORTED else name)
        for name, labels in re.findall(r"(ray_\w+)\{([^}]*)\}", expression):
            base = re.sub(r"_(bucket|count|sum)$", "", name)
            metric = EXPORTED.get(name) or EXPORTED[base]
            assert set(re.findall(r"(\w+)=", labels)) <= {*metric.labels, "le"}, expression
    assert len(used) > 0.75 * len(EXPORTED)


def test_every_alert_says_what_to_do_and_has_a_test() -> None:
    tests = (FOLDER / "alerts_test.yaml").read_text()
    for rule in rules():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"].endswith(".")
        assert len(rule["annotations"]["runbook"]) > 80
        assert f'alertname="{rule["alert"]}"' in tests, rule["alert"]


def test_panels_lie_side_by_side() -> None:
    taken = set()
    made = dashboard.dashboard()["panels"]
    assert len({panel["id"] for panel in made}) == len(made)
    for panel in made:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells


@pytest.mark.parametrize("what", [("check", ALERTS), ("test", FOLDER / "alerts_test.yaml")])
def test_prometheus_takes_the_rules(what: tuple[str, Path]) -> None:
    verb, file = what
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (apt-get install prometheus)")
    done = subprocess.run(
        [promtool, verb, "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
