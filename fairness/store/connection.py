"""Connections to Redis or Valkey."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.connection import (
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from fairness.store.address import Address, Kind, parse
from fairness.store.contract import StoreUnavailableError
from fairness.store.credentials import SENTINEL_VARIABLES, STORE_VARIABLES, LocalCredentials
from fairness.store.settings import Credentials, StoreSettings

SCHEMA = "fairlane:5"


@dataclass(frozen=True, slots=True)
class Node:
    """One server: a host and port, or the path of a unix socket.

    username, password: from the URL. A password there is for this very server and excludes all
    that is configured elsewhere.
    """

    host: str = ""
    port: int = 0
    path: str = ""
    db: int = 0
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.path or f"{self.host}:{self.port}"


def node_of(address: Address) -> Node:
    """The one server that an address of kind SERVER or UNIX names."""
    host, port = ("", 0) if address.kind is Kind.UNIX else address.hosts[0]
    return Node(
        host, port, address.path, address.db, address.tls, address.username, address.password
    )


def connect(url: str) -> Redis:
    """A client of the server at a plain URL (`redis://`, `rediss://`, `unix://`), with the
    default settings. See `connect_to`."""
    return connect_to(node_of(parse(url)), StoreSettings(url))


def connect_to(node: Node, settings: StoreSettings) -> Redis:
    """A client of one server; replies as text. Nothing is opened yet.

    Opening a connection is bounded; a call is not, as its caller bounds it (`asyncio.timeout`)
    with everything that belongs to it. redis-py's own limit would go through `asyncio.wait_for`,
    which costs a task a call and on Python 3.11 may swallow a cancellation. Nothing is tried
    twice here: the callers know what to do about a failure.
    """
    options: dict[str, Any] = {"db": node.db, "decode_responses": True}
    if node.path:
        kind: type[Connection] | type[UnixDomainSocketConnection] = UnixDomainSocketConnection
        options["path"] = node.path
    else:
        kind = SSLConnection if node.tls else Connection
        options |= {"host": node.host, "port": node.port}
    options |= _common_options(settings, tls=node.tls)
    options["credential_provider"] = _store_credentials(node, settings)
    return Redis.from_pool(ConnectionPool(connection_class=kind, **options))


def sentinel_options(settings: StoreSettings, *, tls: bool) -> dict[str, Any]:
    """Keyword arguments for redis-py's clients of Sentinels."""
    options = _common_options(settings, tls=tls)
    options["ssl"] = tls
    options["decode_responses"] = True
    options["credential_provider"] = LocalCredentials(
        settings.sentinel_credentials, SENTINEL_VARIABLES
    )
    return options


def _common_options(settings: StoreSettings, *, tls: bool) -> dict[str, Any]:
    options: dict[str, Any] = {
        "protocol": 2,  # needs no more; and no HELLO, which an ACL would have to allow
        "driver_info": None,  # nor CLIENT SETINFO
        "socket_timeout": None,
        "socket_connect_timeout": settings.connect_timeout_s,
        "redis_connect_func": partial(_log_in, settings.connect_timeout_s),
        "retry": Retry(NoBackoff(), 0),
    }
    if tls:
        options |= {
            "ssl_cert_reqs": "required",
            "ssl_check_hostname": True,
            "ssl_ca_certs": settings.tls.ca_file,
            "ssl_certfile": settings.tls.cert_file,
            "ssl_keyfile": settings.tls.key_file,
        }
    return options


def _store_credentials(node: Node, settings: StoreSettings) -> LocalCredentials:
    if node.password is not None:
        return LocalCredentials(Credentials(node.username, node.password), ("", ""))
    configured = settings.credentials
    user_variable, password_variable = STORE_VARIABLES
    if node.username is not None:
        configured = Credentials(node.username, configured.password, configured.password_file)
        user_variable = ""
    return LocalCredentials(configured, (user_variable, password_variable))


async def _log_in(timeout_s: float, connection: Connection) -> None:
    """What redis-py does with a new connection, within a limit of time."""
    try:
        async with asyncio.timeout(timeout_s):
            await connection.on_connect()
    except TimeoutError:
        # redis-py closes the connection only after errors of its own.
        raise RedisTimeoutError(f"no answer to the log-in in {timeout_s:g} s") from None


async def shared_secret(redis: Redis, name: str, known: bytes | None = None) -> bytes:
    """A key that all who can reach the store share; made by whoever asks first.

    known: store this one if there is none (a store that has lost its data). What is returned is
    what stands there in the end. Raises StoreUnavailableError.
    """
    key = f"{SCHEMA}:secret:{name}"
    try:
        await redis.set(key, secrets.token_hex(32) if known is None else known.hex(), nx=True)
        return bytes.fromhex(cast(str, await redis.get(key)))
    except (RedisError, OSError) as error:
        raise StoreUnavailableError(str(error)) from error
