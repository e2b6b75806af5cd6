"""The store's URL, taken apart. One syntax for a server, its Sentinels, or a Cluster.

    redis://[user:password@]host[:6379][/db]
    unix://[user:password@]/path/to/socket[?db=0]
    redis+sentinel://[user:password@]host[:26379],host[:26379].../master-name[/db]
    redis+cluster://[user:password@]host[:6379],host[:6379]...

`rediss` instead of `redis` means TLS. User and password are the store's, also where the hosts are
its Sentinels. No message from here repeats a URL: it may hold a password.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import parse_qsl, unquote, urlsplit


class Kind(Enum):
    """What stands at the hosts of a URL, by the name its scheme gives it."""

    SERVER = "redis"
    UNIX = "unix"
    SENTINEL = "redis+sentinel"
    CLUSTER = "redis+cluster"


SCHEMES: dict[str, tuple[Kind, bool]] = {  # scheme -> what it is, whether over TLS
    kind.value: (kind, False) for kind in Kind
} | {kind.value.replace("redis", "rediss"): (kind, True) for kind in Kind if kind is not Kind.UNIX}
DEFAULT_PORT = {Kind.SERVER: 6379, Kind.SENTINEL: 26379, Kind.CLUSTER: 6379}

Host = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Address:
    """A URL's parts. `path`: of the unix socket. `master`: its name to the Sentinels."""

    kind: Kind
    tls: bool = False
    hosts: tuple[Host, ...] = ()
    path: str = ""
    db: int = 0
    master: str = ""
    username: str | None = None
    password: str | None = field(default=None, repr=False)


def parse(url: str) -> Address:
    """Take a URL apart. Raises ValueError, which says what to mend."""
    scheme, colon, rest = url.partition("://")
    if not colon or scheme not in SCHEMES:
        named = f"unknown scheme {scheme!r}" if colon else "not a URL"
        raise ValueError(f"{named}; use one of {', '.join(f'{name}://' for name in SCHEMES)}")
    kind, tls = SCHEMES[scheme]
    # The scheme is known, and urlsplit treats unknown ones less well.
    parts = urlsplit(f"redis://{rest}", allow_fragments=False)
    userinfo, _, netloc = parts.netloc.rpartition("@")
    username, _, password = (unquote(part) for part in userinfo.partition(":"))
    segments = [unquote(segment) for segment in parts.path.split("/") if segment]
    hosts: tuple[Host, ...] = ()
    path = master = ""
    if kind is Kind.UNIX:
        if netloc or not segments:
            raise ValueError("a unix:// URL has three slashes and a path: unix:///run/valkey.sock")
        path, segments = unquote(parts.path), []
    else:
        hosts = _hosts(netloc, kind)
    if kind is Kind.SENTINEL:
        if not segments:
            raise ValueError(
                "name the master that the Sentinels watch: redis+sentinel://host:26379/NAME"
            )
        master = segments.pop(0)
    db = _database(segments, parts.query)
    if kind is Kind.CLUSTER and db:
        raise ValueError("a Cluster has only database 0: leave the number out")
    return Address(kind, tls, hosts, path, db, master, username or None, password or None)


def _database(segments: list[str], query: str) -> int:
    """The database's number: the path's last segment, or the query's `db`."""
    options = parse_qsl(query)
    unknown = sorted({name for name, _ in options if name != "db"})
    if unknown:
        raise ValueError(
            f"unknown option {', '.join(unknown)} after the '?': only db is known there; "
            "timeouts, TLS files and credentials have fields of their own beside the URL"
        )
    numbers = [*segments, *(value for _, value in options)]
    if len(numbers) > 1:
        raise ValueError("after the hosts only the number of the database may stand, once")
    if numbers and not numbers[0].isdecimal():
        raise ValueError("the database in the URL is a number; most stores have only 0")
    return int(numbers[0]) if numbers else 0


def _hosts(text: str, kind: Kind) -> tuple[Host, ...]:
    hosts = tuple(_host(part, DEFAULT_PORT[kind]) for part in text.split(","))
    if kind is Kind.SERVER and len(hosts) > 1:
        raise ValueError(
            "redis:// names one server; for several write redis+sentinel:// or redis+cluster://"
        )
    return hosts


def _host(text: str, default_port: int) -> Host:
    """One `host`, `host:port`, `[v6]` or `[v6]:port`."""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
    else:
        host, colon, port = text.partition(":")
        port = colon + port
    number = port[1:] if port.startswith(":") else port
    if not host or ":" in number or (number and not number.isdecimal()):
        raise ValueError(
            "cannot read the hosts: write host:port, [IPv6]:port, several with commas; "
            "percent-encode what is special in a password (%2F for /, %40 for @, %23 for #)"
        )
    return host, int(number or default_port)
