"""What every request in the engine has used, for its client and for its lease.

A request lives through: **opened** (waiting for its first admission), **admitted** (its
prompt is charged), any number of times **preempted** and admitted again (free), and
**ended**. Tokens it **produced** are charged as they come. At the end, prompt tokens that
were charged at the admission but never computed (the client went away in the middle of a
long prefill) are refunded.

So at every moment and exactly, for the requests of a client, with weight 1::

    charged = input_weight * (input - cached) + output_weight * output

where ``input`` counts prompt tokens admitted (less those refunded), ``cached`` those of them
that the prefix cache provided, and ``output`` the tokens the model produced and the engine
accepted.

Several requests may belong to one **lease** (``n > 1``, lists of prompts); a lease adds them
up. What changed since the last report is remembered, so that a report costs what changed.

Nothing here knows vLLM. Cost: O(1) per event; memory: one record per live request, per lease
until its end is reported, and per client until it is forgotten.
"""

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fairness.cost import ServiceCost
from fairness.counters import VirtualTokenCounters

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose request it is, as the replica wrote it into the request's parameters."""

    client: str = ""
    lease: str | None = None
    weight: float = 1.0
    counter: float | None = None

    @classmethod
    def read(cls, fields: Any) -> "Identity":
        """Read ``{"client": str, "lease": str, "weight": float, "counter": float | None}``.

        A request without it (the engine's own, or one that came past the router) belongs to
        client "" and to no lease. So does one whose fields make no sense: the engine serves
        all clients and must not stop for one request.
        """
        if fields is None:
            return cls()
        try:
            counter = fields.get("counter")
            identity = cls(
                client=str(fields["client"]),
                lease=None if fields.get("lease") is None else str(fields["lease"]),
                weight=float(fields.get("weight", 1.0)),
                counter=None if counter is None else float(counter),
            )
            numbers = (identity.weight, identity.counter or 0.0)
            if not all(map(math.isfinite, numbers)) or identity.weight <= 0:
                raise ValueError("weight must be above 0, weight and counter must be finite")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            logger.error("a request's identity %r is unusable (%s): charged to ''", fields, error)
            return cls()
        return identity


@dataclass(slots=True)
class _Lease:
    waiting: int = 0
    running: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0


@dataclass(slots=True)
class _Client:
    live: int = 0
    waiting: int = 0  # of these: in a queue, new or preempted


@dataclass(slots=True)
class _Request:
    client: str
    lease: str | None
    usage: _Lease  # its lease's, or one of its own that nobody reads
    waiting: bool = True
    admitted: bool = False
    input: int = 0
    cached: int = 0
    output: int = 0
    computed: int = 0  # most prompt tokens ever computed; a preemption starts over from 0


@dataclass(slots=True)
class Ledger:
    """Charges requests to the counters and keeps the books of their leases."""

    cost: ServiceCost
    counters: VirtualTokenCounters
    _requests: dict[str, _Request] = field(default_factory=dict)
    _clients: dict[str, _Client] = field(default_factory=dict)
    _leases: dict[str, _Lease] = field(default_factory=dict)
    _changed_leases: set[str] = field(default_factory=set)
    _changed_clients: set[str] = field(default_factory=set)

    def client_of(self, request_id: str) -> str:
        """Return the client of a live request."""
        return self._requests[request_id].client

    def opened(self, request_id: str, identity: Identity) -> None:
        """Note a new request: it waits."""
        client, lease = identity.client, identity.lease
        usage = _Lease() if lease is None else self._leases.setdefault(lease, _Lease())
        usage.waiting += 1
        self._requests[request_id] = request = _Request(client, lease, usage)
        self.counters.join(client, identity.weight, identity.counter)
        standing = self._clients.setdefault(client, _Client())
        standing.live += 1
        standing.waiting += 1
        self._touch(request)

    def admitted(self, request_id: str, prompt_tokens: int, cached: int) -> None:
        """Note that a request runs (again), and charge what of its prompt is new.

        Args:
            prompt_tokens: the length of its prompt now.
            cached: how many of them the prefix cache provides, on its first admission.
        """
        request = self._requests[request_id]
        self._stop_waiting(request)
        # A streaming session grows its prompt and folds its output into it, both between
        # admissions. For any other request nothing is new after the first.
        new = max(0, prompt_tokens - request.input - request.output)
        if not request.admitted:
            request.admitted = True
            request.usage.waiting -= 1
            request.usage.running += 1
            request.cached = cached
            request.usage.cached += cached
            self._charge(request, self.cost.of(new - cached, 0))
        elif new:
            self._charge(request, self.cost.of(new, 0))
        request.input += new
        request.usage.input += new

    def produced(self, request_id: str, tokens: int) -> None:
        """Charge output tokens that the engine accepted. (The hot path: once per token.)"""
        request = self._requests[request_id]
        request.output += tokens
        request.usage.output += tokens
        self._charge(request, self.cost.of(0, tokens))

    def preempted(self, request_id: str, computed: int) -> None:
        """Note that a running request waits again; ``computed`` tokens of it were computed."""
        request = self._requests[request_id]
        request.computed = max(request.computed, computed)
        if not request.waiting:
            request.waiting = True
            self._clients[request.client].waiting += 1
            self.counters.rejoin(request.client)

    def ended(self, request_id: str, computed: int) -> str | None:
        """Close a request, for whatever reason it ended, and refund what was not computed.

        Args:
            computed: tokens computed for it, counted from the start of its prompt.

        Returns:
            Its client, whose counter may have gone down; None if the request is unknown.
        """
        request = self._requests.pop(request_id, None)
        if request is None:
            return None
        self._stop_waiting(request)
        if request.admitted:
            request.usage.running -= 1
            done = max(request.cached, request.computed, computed)
            if done < request.input:
                unused = request.input - done
                request.usage.input -= unused
                self._charge(request, -self.cost.of(unused, 0))
        else:
            request.usage.waiting -= 1
        standing = self._clients[request.client]
        standing.live -= 1
        if not standing.live:
            del self._clients[request.client]
        self._touch(request)
        return request.client

    def report(self) -> tuple[list[list[Any]], dict[str, float]]:
        """Return what changed since the last report: leases, and clients' charges.

        A lease with nothing waiting and nothing running has ended; it is reported this once
        and dropped. Clients with live requests are always among the charges.
        """
        leases = []
        for lease in self._changed_leases:
            usage = self._leases[lease]
            leases.append(
                [lease, usage.waiting, usage.running, usage.input, usage.cached, usage.output]
            )
            if not usage.waiting and not usage.running:
                del self._leases[lease]
        self._changed_leases.clear()
        clients = self._changed_clients.union(self._clients)
        self._changed_clients.clear()
        return leases, {client: self.counters.charged(client) for client in clients}

    def set_bases(self, bases: Mapping[str, float]) -> None:
        """Take over bases from the global queue; see ``fairness.counters``."""
        for client, base in bases.items():
            self.counters.set_base(client, base)

    def forget(self, clients: Iterable[str]) -> None:
        """Drop clients that have nothing live here and nothing left to report."""
        for client in clients:
            if client not in self._clients and client not in self._changed_clients:
                self.counters.forget(client)

    def _charge(self, request: _Request, service: float) -> None:
        self.counters.charge(request.client, service)
        self._touch(request)

    def _touch(self, request: _Request) -> None:
        self._changed_clients.add(request.client)
        if request.lease is not None:
            self._changed_leases.add(request.lease)

    def _stop_waiting(self, request: _Request) -> None:
        if request.waiting:
            request.waiting = False
            standing = self._clients[request.client]
            standing.waiting -= 1
            if not standing.waiting:
                self.counters.leave(request.client)
