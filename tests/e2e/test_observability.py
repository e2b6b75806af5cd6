"""A real Prometheus scrapes the application under load: every query of the dashboard has data, and
every alert rule is evaluated over series that exist."""

from __future__ import annotations

import asyncio
import math
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deployments.observability import dashboard
from deployments.observability.panels import ROWS
from loadtests.driver import Client, ClosedLoop, run
from tests.e2e.conftest import KEYS, App, bearer, free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ALERTS = Path(dashboard.__file__).with_name("alerts.yaml")
DEADLINE_S = 200  # of which the first data take some forty: Ray reports every ten seconds
VARIABLES = {"$pool": ".*", "$client": ".*", "$__rate_interval": "1m"}


@pytest.fixture
def prometheus(app: App, tmp_path: Path) -> Iterator[str]:
    """URL of a Prometheus that scrapes the app and has the alert rules."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("prometheus is not installed (apt-get install prometheus)")
    port = free_port()
    config = {
        "global": {"scrape_interval": "2s", "evaluation_interval": "2s"},
        "rule_files": [str(ALERTS)],
        "scrape_configs": [
            {
                "job_name": "ray",
                "static_configs": [{"targets": [f"127.0.0.1:{app.metrics_port}"]}],
            }
        ],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    process = subprocess.Popen(
        [
            binary,
            f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


async def data(http: httpx.AsyncClient, expression: str) -> list[dict[str, Any]]:
    """The series that an expression has now; those that are numbers."""
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    answer = await http.get("/api/v1/query", params={"query": expression})
    assert answer.status_code == 200, f"{expression}: {answer.text}"
    result: list[dict[str, Any]] = answer.json()["data"]["result"]
    return [series for series in result if not math.isnan(float(series["value"][1]))]


def a_client_in_a_group(app: App) -> str:
    """Its key."""
    with httpx.Client(base_url=app.url, headers=bearer("admin"), timeout=30) as admin:
        made = [
            admin.post("/admin/groups", json={"name": "observed", "weight": 2}),
            admin.post("/admin/clients", json={"name": "dora", "group": "observed"}),
            admin.post("/admin/keys", json={"client": "dora"}),
        ]
    assert all(answer.is_success or answer.status_code == 409 for answer in made), [
        answer.text for answer in made
    ]
    return str(made[-1].json()["key"])


async def test_every_panel_has_data_and_every_alert_is_evaluated(app: App, prometheus: str) -> None:
    load = asyncio.create_task(
        run(
            app.url,
            [
                Client("alice", KEYS["alice"], ClosedLoop(40), max_tokens=32),
                Client("bob", KEYS["bob"], ClosedLoop(40), max_tokens=32),
                Client("dora", a_client_in_a_group(app), ClosedLoop(20), max_tokens=32),
            ],
            DEADLINE_S,
            model="tiny",
        )
    )
    wanted = {
        query.expression: panel.title
        for row in ROWS
        for panel in row.panels
        for query in panel.queries
    }
    try:
        async with asyncio.timeout(DEADLINE_S):
            async with httpx.AsyncClient(base_url=prometheus, timeout=30) as http:
                with suppress(httpx.TransportError):  # it is only starting
                    await http.get("/-/ready")
                await until_all_have_data(http, wanted)
                await the_numbers_make_sense(http)
                await alerts_are_evaluated(http)
    except TimeoutError:
        pytest.fail(f"no data in {DEADLINE_S} s for {wanted}")
    finally:
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)


async def until_all_have_data(http: httpx.AsyncClient, wanted: dict[str, str]) -> None:
    """Takes those out of `wanted` that have data."""
    while wanted:
        await asyncio.sleep(2)
        with suppress(httpx.TransportError):
            for expression in list(wanted):
                if await data(http, expression):
                    del wanted[expression]


async def the_numbers_make_sense(http: httpx.AsyncClient) -> None:
    async def number(expression: str) -> float:
        (series,) = await data(http, expression)
        return float(series["value"][1])

    clients = await data(http, "max by (client) (ray_fairlane_client_service_per_second > 0)")
    assert {"alice", "bob", "dora"} <= {series["metric"]["client"] for series in clients}
    assert await number("max(ray_fairlane_pool_replicas)") == 2
    assert await number("sum(ray_fairlane_store_up)") == 2  # routers
    assert (
        await number("max(ray_fairlane_pool_service_gap / ray_fairlane_pool_service_gap_bound)") < 1
    )
    assert await number("max(ray_fairlane_pool_observation_interval_seconds)") < 30
    assert 0 < await number("max(ray_fairlane_pool_jain_index)") <= 1
    counted = await number('sum(ray_fairlane_requests_total{outcome="ok"})')
    granted = await number("sum(ray_fairlane_queue_wait_seconds_count)")
    assert 0 < counted < 2 * granted


async def alerts_are_evaluated(http: httpx.AsyncClient) -> None:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    for rule in rules:
        for name in set(re.findall(r"ray_fairlane_\w+", rule["expr"])):
            assert await data(http, f"count({name})"), f"{rule['alert']} is about {name}"
        await data(http, rule["expr"])
    loaded = (await http.get("/api/v1/rules")).json()["data"]["groups"]
    live = {rule["name"]: rule for group in loaded for rule in group["rules"]}
    assert set(live) == {rule["alert"] for rule in rules}
    assert all(rule["health"] == "ok" for rule in live.values()), live
    firing = {name for name, rule in live.items() if rule["state"] == "firing"}
    assert not firing, firing
