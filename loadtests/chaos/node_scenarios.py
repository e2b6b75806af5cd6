"""The faults of whole nodes: plug pulled, cable pulled, head lost. See `nodes` for what is where.

Clients ask the first worker, so it is the second one that goes; what reaches a node that is gone is
for a load balancer to know.
"""

from __future__ import annotations

import asyncio
import signal

from loadtests.chaos.application import REPLICA
from loadtests.chaos.nodes import NodesApplication
from loadtests.chaos.scenarios import Scenario, Scene

GONE_S = 45.0  # longer than anybody waits for a sign of life
CUT_S = 15.0  # shorter than Ray waits before it gives a node up
HEADLESS_S = 100.0  # longer than Ray's processes wait for a head by default, which is 60 s
REPLICA_DIES_S = 20.0


def _nodes(scene: Scene) -> NodesApplication:
    assert isinstance(scene.app, NodesApplication), "this fault needs nodes"
    return scene.app


async def kill_node(scene: Scene) -> None:
    nodes = _nodes(scene)
    second = nodes.workers[1]
    await asyncio.to_thread(second.pull_the_plug)
    try:
        await asyncio.sleep(GONE_S)
    finally:
        nodes.start_worker(second)


async def cut_node(scene: Scene) -> None:
    second = _nodes(scene).workers[1]
    second.cut()
    try:
        await asyncio.sleep(CUT_S)
    finally:
        second.mend()


async def kill_head(scene: Scene) -> None:
    nodes = _nodes(scene)
    await asyncio.to_thread(nodes.head.pull_the_plug)
    try:
        await asyncio.sleep(REPLICA_DIES_S)
        nodes.signal(nodes.on(nodes.workers[1], REPLICA), signal.SIGKILL)
        await asyncio.sleep(HEADLESS_S - REPLICA_DIES_S)
    finally:
        nodes.start_head()


NODE_SCENARIOS = (
    Scenario(
        "cut-node",
        "pull a worker's cable for 15 s",
        cut_node,
        fault_s=CUT_S,
        setting="nodes",
        cuts=True,
        goes_on=True,
        heals=True,
    ),
    Scenario(
        "kill-node",
        "pull a worker's plug; another one comes after 45 s",
        kill_node,
        fault_s=GONE_S,
        setting="nodes",
        cuts=True,
        may_forget=True,
        goes_on=True,
        heals=True,
    ),
    Scenario(
        "kill-head",
        "pull the head's plug for 100 s, and kill -9 a replica meanwhile",
        kill_head,
        fault_s=HEADLESS_S,
        setting="nodes",
        may_forget=True,
        goes_on=True,
        heals=True,
    ),
)
