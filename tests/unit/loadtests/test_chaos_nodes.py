"""What is asked of nodes: one router and one replica on each worker, stores that all reach."""

from pathlib import Path
from typing import Any

import yaml

from deployments.local_cluster import load
from loadtests.chaos import machines
from loadtests.chaos.node_scenarios import CUT_S, GONE_S, HEADLESS_S, NODE_SCENARIOS
from loadtests.chaos.nodes import (
    ROUTER_CPUS,
    SLOT,
    WITHOUT_HEAD_S,
    WORKER_CPUS,
    config_of_nodes,
)
from loadtests.chaos.scenarios import SCENARIOS

STORE = "redis://10.77.0.1:7000/0"


def written() -> dict[str, Any]:
    return dict(config_of_nodes(STORE))


def test_the_configuration_is_sound_and_spread_over_nodes(tmp_path: Path) -> None:
    path = tmp_path / "nodes.yaml"
    path.write_text(yaml.safe_dump(written()), encoding="utf-8")
    settings = load(path)
    assert settings.host == "0.0.0.0" and written()["proxy_location"] == "EveryNode"
    assert settings.app.store.settings().url == STORE


def test_a_worker_has_room_for_one_router_and_one_replica() -> None:
    args = written()["applications"][0]["args"]
    (bundle,) = args["pools"][0]["llm"]["placement_group_config"]["bundles"]
    assert bundle[SLOT] == 1
    routers = args["router"]["num_cpus"]
    assert routers == ROUTER_CPUS
    assert routers + bundle["CPU"] <= WORKER_CPUS < 2 * routers


def test_the_faults_of_nodes_are_of_their_own_setting() -> None:
    assert {scenario.setting for scenario in NODE_SCENARIOS} == {"nodes"}
    assert not {s.name for s in SCENARIOS} & {s.name for s in NODE_SCENARIOS}
    assert all(scenario.goes_on and scenario.heals for scenario in NODE_SCENARIOS)
    assert CUT_S < GONE_S < HEADLESS_S < WITHOUT_HEAD_S


def test_cables_have_names_that_the_kernel_takes(tmp_path: Path) -> None:
    for number in (10, 254):
        machine = machines.Machine("worker", number, tmp_path)
        assert machine.address == f"{machines.NETWORK}.{number}"
        assert len(f"{machine._cable}-in") <= 15
