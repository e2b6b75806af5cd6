"""How to reach the store: what is configured once and given to every router and replica."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Protocol


class _UrlMethod(Protocol):
    def remote(self) -> Awaitable[str]: ...


class UrlHandle(Protocol):
    """A handle of the deployment that runs the embedded server (this package needs no Ray)."""

    @property
    def url(self) -> _UrlMethod: ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are to a server, as configured; see `credentials.LocalCredentials`.

    password_file: its text, without the last line end, is the password.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: str | None = None


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM format, read at every new connection. The server is always verified.

    ca_file: trusted besides the system's authorities. cert_file, key_file: ours, for servers that
    ask for one.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Everything that a router or replica needs to reach the store.

    It travels to other machines, so it carries no secret that can be read there from a file or
    from the environment instead.

    url: see `address.parse`; or the handle of the embedded server, which tells its URL.
    connect_timeout_s: to open one connection, TLS and log-in included. call_timeout_s: for one
    call, with all that it takes: finding the server, connecting, the answer.
    """

    url: str | UrlHandle = field(repr=False)
    credentials: Credentials = Credentials()
    sentinel_credentials: Credentials = Credentials()
    tls: Tls = Tls()
    connect_timeout_s: float = 1.0
    call_timeout_s: float = 2.0
