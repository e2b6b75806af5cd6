"""What an application of a given setting stands on: its store, and its configuration file."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from loadtests.chaos.machines import HOST, switch
from loadtests.chaos.nodes import config_of_nodes
from loadtests.chaos.store_servers import SentinelStore, StoreServer
from loadtests.chaos.wire import Wire

LOCAL = Path(__file__).resolve().parents[2] / "deployments" / "local.yaml"
SETTINGS = ("single", "sentinel", "fail-closed", "nodes")


@dataclass(slots=True)
class Backing:
    """A running store: one server behind a wire, or Sentinels with two servers, or one that nodes
    reach, and beside it the one of Ray's control plane."""

    config: Path
    url: str
    single: StoreServer | None = None
    between: Wire | None = None
    sentinels: SentinelStore | None = None
    control: StoreServer | None = None

    @property
    def server(self) -> StoreServer:
        """The server that has the data now."""
        if self.sentinels is not None:
            return self.sentinels.primary
        assert self.single is not None
        return self.single

    @property
    def wire(self) -> Wire:
        """The wire to the single server."""
        assert self.between is not None, "only a single store has a wire"
        return self.between


@contextlib.contextmanager
def standing(setting: str, folder: Path) -> Iterator[Backing]:
    """Start the store of a setting in an empty folder; end it after. Raises ServerFailedError."""
    folder.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        if setting == "sentinel":
            sentinels = SentinelStore(folder)
            stack.callback(sentinels.stop)
            asyncio.run(sentinels.start())
            yield Backing(LOCAL, sentinels.url, sentinels=sentinels)
            return
        if setting == "nodes":
            stack.enter_context(switch())
            store, control = (_outside(folder / name, stack) for name in ("store", "control"))
            config = _written(folder / "nodes.yaml", config_of_nodes(store.url))
            yield Backing(config, store.url, single=store, control=control)
            return
        server = StoreServer(folder / "store")
        stack.callback(server.kill)
        server.start()
        asyncio.run(server.ready())
        wire = Wire(server.port, folder / "wire.log")
        stack.callback(wire.stop)
        wire.start()
        config = LOCAL
        if setting == "fail-closed":
            config = _fail_closed(folder / "fail-closed.yaml", wire.url)
        yield Backing(config, wire.url, single=server, between=wire)


def _fail_closed(path: Path, url: str) -> Path:
    """Write local.yaml with a store that must be there."""
    content = yaml.safe_load(LOCAL.read_text(encoding="utf-8"))
    for application in content["applications"]:
        application["args"]["store"] = {"url": url, "fail_closed": True}
    return _written(path, content)


def _outside(folder: Path, stack: contextlib.ExitStack) -> StoreServer:
    """Start a server that the nodes reach."""
    server = StoreServer(folder, host=HOST)
    stack.callback(server.kill)
    server.start()
    asyncio.run(server.ready())
    return server


def _written(path: Path, content: Mapping[str, object]) -> Path:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
