"""What an application of a given setting stands on: its store, and its configuration file."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from loadtests.chaos.store_servers import SentinelStore, StoreServer
from loadtests.chaos.wire import Wire

LOCAL = Path(__file__).resolve().parents[2] / "deployments" / "local.yaml"
SETTINGS = ("single", "sentinel", "fail-closed")


@dataclass(slots=True)
class Backing:
    """A running store: one server behind a wire, or Sentinels with two servers."""

    config: Path
    url: str
    single: StoreServer | None = None
    between: Wire | None = None
    sentinels: SentinelStore | None = None

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
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path
