"""`fairlane capacity`: how many routers, and how busy the store, for so many GPUs.

Everything grows with one of four things: tokens, requests, running requests, replicas. What each
costs was measured on two shared cores (docs/operations.md#sizing; the same machine varies by two);
the rest is multiplication, and nothing of this size has run. Of one pool: its keys are on one
server, whose scripts run on one thread, so a store server is full when the shares of the pools on
it reach one core.

    store = requests/s x REQUEST + charges/s x CHARGE + calls/s x CALL
    charges/s = replicas x running / charge_interval_s
    calls/s   = replicas x (2 x requests/s of a replica, 100 at most, + 1 / charge_interval_s)
                + routers' calls: requests/s, 500 a router at most

A replica calls when a request enters its batch or ends, ten milliseconds apart at least, and to
charge; a router has one call under way, a round trip each, which its requests share.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Measured, seconds of CPU (where: docs/operations.md#sizing).
REQUEST_S = 85e-6  # submit, grant, settle and offer, calls apart
CHARGE_S = 35e-6
CALL_S = 130e-6
ROUTER_TOKEN_S = 23e-6  # of answers of 128 tokens, so with the request's own share
PROXY_TOKEN_S = 10e-6
REPLICA_TOKEN_S = 66e-6
CLIENT_BYTES = 120
# Computed: a chunk of vLLM's stream as JSON; twice on the wire (to the router, to the client).
TOKEN_BYTES = 250
# Chosen.
CALLS_AT_MOST = 100.0  # a replica, a second (report_interval_s)
ROUTER_CALLS_AT_MOST = 500.0  # of 2 ms
INTERVALS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
CHARGES_SHARE = 0.2  # of the store's core, for charges
STORE_SHARE = 0.7  # of its core, beyond which waits for it grow
ROUTER_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Load:
    """One pool, fully used.

    running, tokens_per_s: requests in the batch of a replica, and what it makes. answer: output
    tokens of a request. clients: that were ever heard of. charge_interval_s: None: as it should be.
    """

    gpus: int
    gpus_per_replica: int = 1
    running: float = 64
    tokens_per_s: float = 2_000
    answer: float = 250
    clients: int = 10_000
    charge_interval_s: float | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and not value > 0:
                raise ValueError(f"{field.name} must be above 0, not {value}")

    @property
    def replicas(self) -> int:
        """Whole ones; at least 1."""
        return max(1, self.gpus // self.gpus_per_replica)


@dataclass(frozen=True, slots=True)
class Need:
    """What a load takes. *_cores: busy cores. store: of one core, by what it does.

    network_bytes_per_s: of streams, all hops. store_bytes: of clients. limit: what has to change,
    None where nothing has.
    """

    replicas: int
    requests_per_s: float
    tokens_per_s: float
    charge_interval_s: float
    store_requests: float
    store_charges: float
    store_calls: float
    routers: int
    router_cores: float
    proxy_cores: float
    replica_cores: float
    network_bytes_per_s: float
    store_bytes: int
    limit: str | None

    @property
    def store(self) -> float:
        """Busy share of the store's one thread."""
        return self.store_requests + self.store_charges + self.store_calls


def need(load: Load) -> Need:
    """Return what this load takes."""
    replicas = load.replicas
    tokens = replicas * load.tokens_per_s
    requests = tokens / load.answer
    interval = load.charge_interval_s or _interval(load)
    routers = max(2, math.ceil(tokens * ROUTER_TOKEN_S / ROUTER_SHARE))
    calls = replicas * (min(2 * requests / replicas, CALLS_AT_MOST) + 1 / interval)
    calls += min(requests, ROUTER_CALLS_AT_MOST * routers)
    found = Need(
        replicas,
        requests,
        tokens,
        interval,
        store_requests=requests * REQUEST_S,
        store_charges=_charges(load, interval),
        store_calls=calls * CALL_S,
        routers=routers,
        router_cores=tokens * ROUTER_TOKEN_S,
        proxy_cores=tokens * PROXY_TOKEN_S,
        replica_cores=tokens * REPLICA_TOKEN_S,
        network_bytes_per_s=2 * tokens * TOKEN_BYTES,
        store_bytes=load.clients * CLIENT_BYTES,
        limit=None,
    )
    if found.store > STORE_SHARE:
        what = f"the store: {found.store:.1f} of its one thread; see below"
        return dataclasses.replace(found, limit=what)
    return found


def _charges(load: Load, interval: float) -> float:
    return load.replicas * load.running / interval * CHARGE_S


def _interval(load: Load) -> float:
    """The shortest with which charges take no more than their share."""
    fits = (each for each in INTERVALS if _charges(load, each) <= CHARGES_SHARE)
    return next(fits, INTERVALS[-1])


TABLE = [
    Load(gpus, per)
    for gpus, per in ((1, 1), (8, 1), (32, 1), (100, 1), (100, 4), (300, 4), (1000, 4), (1000, 8))
]


def table(loads: Sequence[Load] = tuple(TABLE)) -> str:
    """Return a table in Markdown; docs/operations.md has it."""
    rows = [
        "| GPUs (a replica) | replicas | requests/s | `charge_interval_s` | store, of one thread "
        "| with 0.1 s | routers | streams, MB/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for load in loads:
        found = need(load)
        short = need(dataclasses.replace(load, charge_interval_s=INTERVALS[0]))
        rows.append(
            f"| {load.gpus:,} ({load.gpus_per_replica}) | {found.replicas:,} "
            f"| {found.requests_per_s:,.0f} | {found.charge_interval_s:g} | {_marked(found)} "
            f"| {_marked(short)} | {found.routers} | {found.network_bytes_per_s / 1e6:,.0f} |"
        )
    return "\n".join(rows)


def _marked(found: Need) -> str:
    text = f"{found.store:.2f}"
    return f"**{text}**" if found.limit else text


def shown(load: Load) -> str:
    """Return it in lines, for a terminal."""
    found = need(load)
    lines = [
        f"{found.replicas:,} replicas, {found.requests_per_s:,.0f} requests/s, "
        f"{found.tokens_per_s:,.0f} tokens/s",
        f"pools[].charge_interval_s: {found.charge_interval_s:g}",
        f"store: {found.store:.2f} of its one thread (requests {found.store_requests:.2f}, charges "
        f"{found.store_charges:.2f}, calls {found.store_calls:.2f}), and "
        f"{found.store_bytes / 1e6:,.1f} MB of clients",
        f"routers: {found.routers}, {found.router_cores:.1f} cores busy in all; "
        f"HAProxy {found.proxy_cores:.1f}",
        f"beside the engines: {found.replica_cores / found.replicas:.2f} cores a replica",
        f"streams: {found.network_bytes_per_s / 1e6:,.0f} MB/s, all hops",
        f"limit: {found.limit or 'none'}",
        "(costs measured on two shared cores, the rest computed: docs/operations.md#sizing)",
    ]
    return "\n".join(lines)


def add_command(commands: Any) -> None:
    """Add `capacity` to the `fairlane` command."""
    parser = commands.add_parser(
        "capacity",
        help="how many routers, and how busy the store, for so many GPUs",
        description="Compute what one pool takes when it is fully used, from measured costs of a "
        "token, a request, a charge and a call. An estimate: leave twice of it free.",
    )
    default = Load(1)
    parser.add_argument("--gpus", type=int, default=8, help="in all (8)")
    parser.add_argument("--gpus-per-replica", type=int, default=1, help="tensor parallel (1)")
    parser.add_argument(
        "--running", type=float, default=default.running, help="requests in a batch (64)"
    )
    parser.add_argument(
        "--tokens-per-s", type=float, default=default.tokens_per_s, help="of a replica (2000)"
    )
    parser.add_argument(
        "--answer", type=float, default=default.answer, help="output tokens of a request (250)"
    )
    parser.add_argument(
        "--clients", type=int, default=default.clients, help="that were ever heard of (10000)"
    )
    parser.add_argument(
        "--charge-interval-s", type=float, help="default: as short as the store affords"
    )
    parser.add_argument("--json", action="store_true", help="for scripts")
    parser.add_argument("--table", action="store_true", help="docs/operations.md's, in Markdown")
    parser.set_defaults(run=_capacity)


def _capacity(arguments: argparse.Namespace) -> int:
    if arguments.table:
        print(table())
        return 0
    names = [field.name for field in dataclasses.fields(Load)]
    try:
        load = Load(**{name: getattr(arguments, name) for name in names})
    except ValueError as error:
        print(f"fairlane capacity: {error}")
        return 2
    if arguments.json:
        found = need(load)
        print(json.dumps(dataclasses.asdict(found) | {"store": found.store}))
    else:
        print(shown(load))
    return 0
