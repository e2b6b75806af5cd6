"""Where is the one server that holds a key? A small object for each kind of store.

All keys of a pool are on one server, so whatever the store is, finding that server is all there is
to it: the rest is a plain connection. A locator is asked before the first connection and again
after every failure; one that asks several servers begins with another one each time, so that one
whose knowledge is old, or that does not answer, holds nobody up for long.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.crc import key_slot
from redis.exceptions import RedisError

from fairness.store.address import Address, Host, Kind, parse
from fairness.store.connection import Node, connect_to, node_of, sentinel_options
from fairness.store.contract import StoreUnavailableError
from fairness.store.settings import StoreSettings, UrlHandle


class Locator(Protocol):
    """Finds servers."""

    async def locate(self, key: str) -> Node:
        """The server that holds `key` by now. Raises StoreUnavailableError."""
        ...


def locator_of(settings: StoreSettings) -> Locator:
    """The locator for the store's URL. Raises ValueError for a URL that can't be read."""
    if not isinstance(settings.url, str):
        return ToldServer(settings.url)
    address = parse(settings.url)
    match address.kind:
        case Kind.SENTINEL:
            return SentinelMaster(address, settings)
        case Kind.CLUSTER:
            return SlotOwner(address, settings)
        case _:
            return FixedServer(node_of(address))


class FixedServer:
    """A server that is always at the same address."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def locate(self, key: str) -> Node:
        """The address, without asking anyone."""
        return self._node


class ToldServer:
    """A server whose keeper tells its URL: the embedded one, which may come back elsewhere."""

    def __init__(self, handle: UrlHandle) -> None:
        self._handle = handle

    async def locate(self, key: str) -> Node:
        """Ask the keeper. Raises StoreUnavailableError."""
        try:
            return node_of(parse(await self._handle.url.remote()))
        except Exception as error:  # a handle can fail in as many ways as Ray can
            raise StoreUnavailableError(f"cannot ask for the store's address: {error}") from error


class SentinelMaster:
    """The master that Redis' or Valkey's Sentinels have elected."""

    def __init__(self, address: Address, settings: StoreSettings) -> None:
        self._address = address
        self._timeout_s = settings.connect_timeout_s
        self._options = sentinel_options(settings, tls=address.tls)
        self._turn = 0

    async def locate(self, key: str) -> Node:
        """Ask one Sentinel after the other. Raises StoreUnavailableError."""
        address = self._address
        hosts = _rotated(address.hosts, self._turn)
        self._turn += 1
        host, port = await _first_answer(
            hosts, self._ask, self._timeout_s, f"no Sentinel knows a living master {address.master}"
        )
        return Node(
            host,
            port,
            db=address.db,
            tls=address.tls,
            username=address.username,
            password=address.password,
        )

    async def _ask(self, host: Host) -> Host:
        sentinel = Sentinel([host], sentinel_kwargs=self._options)  # type: ignore[no-untyped-call]
        async with sentinel:
            try:
                name, port = await sentinel.discover_master(self._address.master)
            except MasterNotFoundError:
                await sentinel.sentinels[0].ping()  # says why, if it can't be asked at all
                raise StoreUnavailableError("it knows none") from None
        return str(name), int(port)


class SlotOwner:
    """The node of a Cluster that owns a key's slot, a master by definition."""

    def __init__(self, address: Address, settings: StoreSettings) -> None:
        self._address = address
        self._settings = settings
        self._known: tuple[Host, ...] = ()  # nodes heard of; the seeds may be gone one day
        self._turn = 0

    async def locate(self, key: str) -> Node:
        """Ask one node after the other for the slot map. Raises StoreUnavailableError."""
        seeds = self._address.hosts
        hosts = _rotated((*seeds, *(host for host in self._known if host not in seeds)), self._turn)
        self._turn += 1
        slot = key_slot(key.encode())

        async def ask(host: Host) -> Host:
            owners = await self._slot_map(host)
            self._known = tuple({owner for _, _, owner in owners})
            for first, last, owner in owners:
                if first <= slot <= last:
                    return owner
            raise StoreUnavailableError(f"nobody owns slot {slot}")

        host = await _first_answer(
            hosts, ask, self._settings.connect_timeout_s, "no node of the Cluster tells the owner"
        )
        return self._node(host)

    async def _slot_map(self, host: Host) -> list[tuple[int, int, Host]]:
        """(first slot, last slot, owner) of every range, as the node at `host` knows it."""
        redis = connect_to(self._node(host), self._settings)
        try:
            ranges: Any = await redis.execute_command("CLUSTER SLOTS")  # type: ignore[no-untyped-call]
        finally:
            await redis.aclose()
        # A node that does not know its own name leaves it out: it is the one that was asked.
        return [
            (int(first), int(last), (name if name not in (None, "", "?") else host[0], int(port)))
            for first, last, (name, port, *_), *_ in ranges
        ]

    def _node(self, host: Host) -> Node:
        address = self._address
        return Node(*host, tls=address.tls, username=address.username, password=address.password)


def _rotated(hosts: tuple[Host, ...], turn: int) -> tuple[Host, ...]:
    start = turn % len(hosts)
    return hosts[start:] + hosts[:start]


async def _first_answer(
    hosts: tuple[Host, ...],
    ask: Callable[[Host], Awaitable[Host]],
    timeout_s: float,
    otherwise: str,
) -> Host:
    """The first host's answer that has one. Raises StoreUnavailableError with everyone's words."""
    failures = []
    for host in hosts:
        try:
            async with asyncio.timeout(timeout_s):
                return await ask(host)
        except (RedisError, OSError, StoreUnavailableError) as error:
            said = f"no answer in {timeout_s:g} s" if isinstance(error, TimeoutError) else error
            failures.append(f"{host[0]}:{host[1]}: {said}")
    raise StoreUnavailableError(f"{otherwise} ({'; '.join(failures)})")
