"""Replicas come with a backlog and go when it is gone, configurations are rolled out, and no stream
is lost: the real application on vLLM."""

from __future__ import annotations

import asyncio
import copy
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.e2e.conftest import ROOT, App, bearer, serving

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.own_application,
    pytest.mark.long,
    pytest.mark.timeout(1500),
]

WAIT_S = 400.0
SHORT_S = 3.0
LOOKS = 12  # whichever router is asked: there are two
SCALING = {
    "min_replicas": 1,
    "max_replicas": 2,
    "upscale_delay_s": 1,
    "downscale_delay_s": 3,
    "look_back_period_s": 4,
    "metrics_interval_s": 1,
}


def local_config(
    lookahead: int, *, drain_s: float = WAIT_S, min_replicas: int = 1
) -> dict[str, Any]:
    """local.yaml's application, with a pool of up to 2 replicas; whoever leaves has `drain_s`."""
    content = yaml.safe_load((ROOT / "deployments" / "local.yaml").read_text(encoding="utf-8"))
    application = copy.deepcopy(content["applications"][0])
    args = application["args"]
    args["router"]["drain_s"] = drain_s
    args["pools"][0] |= {"drain_s": drain_s, "lookahead": lookahead}
    llm = args["pools"][0]["llm"]
    llm["engine_kwargs"]["max_num_seqs"] = 8
    del llm["deployment_config"]["num_replicas"]
    llm["deployment_config"]["autoscaling_config"] = SCALING | {"min_replicas": min_replicas}
    return {"applications": [application]}


@dataclass
class Cluster:
    """The application, and how to change it."""

    app: App
    file: Path

    @property
    def url(self) -> str:
        return self.app.url

    def roll_out(self, config: dict[str, Any]) -> None:
        """Everything is replaced by new processes; returns when that has been asked for."""
        self.file.write_text(yaml.safe_dump(config), encoding="utf-8")
        self.app.process.send_signal(signal.SIGHUP)

    async def until(self, condition: Callable[[Seen], bool]) -> Seen:
        """Wait until the routers are as `condition` wants them."""
        deadline = asyncio.get_running_loop().time() + WAIT_S
        while True:
            seen = Seen()
            await seen.look(self.url)
            if condition(seen):
                return seen
            assert asyncio.get_running_loop().time() < deadline, seen
            await asyncio.sleep(0.5)


@dataclass
class Seen:
    """What routers said when asked repeatedly: their names, how many replicas each knows, and
    those that one of them saw, with the ones that drain."""

    routers: set[str] = field(default_factory=set)
    replicas: set[int] = field(default_factory=set)
    names: set[str] = field(default_factory=set)

    async def look(self, url: str) -> None:
        """Ask all at once: HAProxy prefers the router with the fewest connections, which may be
        the same one again and again."""
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            paths = ["/healthz"] * LOOKS + ["/readyz"] * LOOKS + ["/admin/live"]
            asked = [http.get(path, headers=bearer("admin")) for path in paths]
            for answer in await asyncio.gather(*asked, return_exceptions=True):
                try:
                    if isinstance(answer, BaseException):
                        raise answer
                    told = answer.json()
                    if "router" in told:
                        self.routers.add(told["router"])
                    elif "replicas" in told:
                        self.replicas.update(told["replicas"].values())
                    else:
                        self.names.update(row["name"] for row in told["tiny"]["replicas"])
                except (httpx.HTTPError, ValueError, KeyError, TypeError):
                    self.replicas.add(0)  # not up yet


@dataclass
class Crowd:
    """Clients that send one request after the other until told to stop.

    told: how many tokens each got, by the usage in its answers. ended: codes of the error events
    with which streams were cut off. lost: all that was not answered in whole otherwise.
    """

    url: str
    tokens: int
    streaming: int = 0
    answered: int = 0
    told: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    stopping: bool = False

    async def one(self, http: httpx.AsyncClient, key: str) -> None:
        while not self.stopping:
            body = {
                "model": "tiny",
                "prompt": "again",
                "max_tokens": self.tokens,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            told, ended = 0, None
            try:
                async with http.stream(
                    "POST", "/v1/completions", json=body, headers=bearer(key)
                ) as answer:
                    async for line in answer.aiter_lines():
                        if line.startswith("data: {"):
                            event = json.loads(line.removeprefix("data: "))
                            told = (event.get("usage") or {}).get("completion_tokens", told)
                            ended = event.get("error", {}).get("code", ended)
                            self.streaming += 1
                    if ended is not None and answer.status_code == 200:
                        self.ended[ended] += 1
                    elif answer.status_code != 200 or told != self.tokens:
                        self.lost.append(f"{answer.status_code}, {told} tokens, {ended}")
            except httpx.HTTPError as error:
                self.lost.append(repr(error))
            self.told[key] += told
            self.answered += 1


@asynccontextmanager
async def crowd(url: str, *, connections: int, tokens: int) -> AsyncIterator[Crowd]:
    """Load, and at the end wait for what is still open."""
    people = Crowd(url, tokens)
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(base_url=url, timeout=WAIT_S, limits=limits) as http,
        asyncio.TaskGroup() as tasks,
    ):
        for number in range(connections):
            tasks.create_task(people.one(http, ("alice", "bob", "carol")[number % 3]))
        try:
            yield people
        finally:
            people.stopping = True


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("scaling")
    file = folder / "scaling.yaml"
    file.write_text(yaml.safe_dump(local_config(4)), encoding="utf-8")
    with serving(folder / "serve.log", folder / "home", config=file) as app:
        yield Cluster(app, file)


async def scale_up_and_down(cluster: Cluster) -> Counter[str]:
    """What clients were told."""
    await cluster.until(lambda seen: len(seen.routers) == 2 and seen.replicas == {1})
    async with crowd(cluster.url, connections=40, tokens=200) as many:
        await cluster.until(lambda seen: seen.replicas == {2})
    assert not many.lost and not many.ended
    assert many.answered >= 40
    # Four go on: no more than one replica holds. The other is drained under them.
    async with crowd(cluster.url, connections=4, tokens=1_000) as few:
        await cluster.until(lambda seen: seen.replicas == {1})
    assert not few.lost and not few.ended
    assert few.answered >= 4
    return many.told + few.told


def replaced(before: Seen) -> Callable[[Seen], bool]:
    """Is nothing of what there was `before` left, and as much there?"""
    return lambda seen: (
        len(seen.routers) == 2
        and not seen.routers & before.routers
        and len(seen.names) == 2
        and not seen.names & before.names
        and seen.replicas == {2}
    )


async def roll_out(cluster: Cluster) -> Counter[str]:
    """What clients were told."""
    async with crowd(cluster.url, connections=50, tokens=200) as people:
        before = await cluster.until(  # or an update stops all there are
            lambda seen: seen.replicas == {2} and len(seen.routers) == len(seen.names) == 2
        )
        cluster.roll_out(local_config(5, drain_s=SHORT_S, min_replicas=2))
        await cluster.until(replaced(before))
    assert not people.lost and not people.ended
    assert people.answered >= 50
    return people.told


async def streams_too_long_to_wait_for(cluster: Cluster) -> None:
    before = await cluster.until(lambda seen: len(seen.routers) == 2 and seen.replicas == {2})
    async with crowd(cluster.url, connections=12, tokens=4_000) as people:
        while people.streaming < 12:
            await asyncio.sleep(0.1)
        cluster.roll_out(local_config(4))
        await cluster.until(lambda seen: not seen.routers & before.routers)
    assert not people.lost
    assert people.ended["server_ended"]  # by its router
    assert people.ended.keys() <= {"server_ended", "replica_failed"}


def test_replicas_follow_the_backlog_and_a_changed_configuration_loses_no_stream(
    cluster: Cluster,
) -> None:
    told = asyncio.run(scale_up_and_down(cluster)) + asyncio.run(roll_out(cluster))
    cluster.app.idle()
    assert {name: cluster.app.usage(name)["output_tokens"] for name in told} == told

    asyncio.run(streams_too_long_to_wait_for(cluster))
    cluster.app.idle()
