"""What every request in the engine has used, for its client and for its lease.

A request lives through: **opened** (waiting for its first admission), **admitted** (its
prompt is charged), any number of times **preempted** and admitted again (free), and
**ended**. Tokens it **produced** are charged at the end of the step that made them. A
streaming session is **continued** with more input when it has answered, and waits again. At the
end, prompt tokens that were charged at the admission but never computed (the client went away in
the middle of a long prefill) are refunded.

So at every moment and exactly, for the requests of a client, with weight 1::

    charged = sum(price * cost.of(input, output, cached))   # over its requests, of some price each

where ``input`` counts prompt tokens admitted (less those refunded), ``cached`` those of them
that the prefix cache provided, and ``output`` the tokens the model produced and the engine
accepted.

Several requests may belong to one **lease** (``n > 1``, lists of prompts); a lease adds them
up. What changed since the last report is remembered, so that a report costs what changed.

The hot path would be the tokens: every running request, every step. But the engine counts them
itself, so nothing is done when they are made (``stepped``). A client's are looked up when somebody
asks for its counter, at most once a step, and its leases' when they are reported. (Touching a few
objects for each of 256 requests in every step took a quarter of the time of vLLM's whole
``update_from_output``, counting names in C a hundredth of a step; asking costs half of that.)

Nothing here knows vLLM. Cost: O(1) per event, nothing per token; O(the client's running requests)
for the first look at its counter in a step; a report O(live requests that were admitted, and
clients with live requests). Memory: one record per live request, per lease until its end is
reported, and per client until it is forgotten.
"""

import logging
import math
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass, field
from typing import Any

from fairness.classes import Classes
from fairness.cost import ServiceCost
from fairness.counters import VirtualTokenCounters
from fairness.groups import Group

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose request it is, as the replica wrote it into the request's parameters."""

    client: str = ""
    lease: str | None = None
    weight: float = 1.0
    counter: float | None = None
    groups: tuple[Group, ...] = ()
    price: float = 1.0

    @classmethod
    def read(cls, fields: Any) -> "Identity":
        """Read ``{"client": str, "lease": str, "weight": float, "counter": float | None, "groups":
        [[name, weight, counter or None], ...], "price": float}``.

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
                groups=tuple(Group(*group) for group in fields.get("groups", ())),
                price=float(fields.get("price", 1.0)),
            )
            if not (math.isfinite(identity.price) and identity.price > 0):
                raise ValueError("price must be above 0 and finite")
            for _, weight, at in ((), identity.weight, identity.counter), *identity.groups:
                if not (math.isfinite(weight) and math.isfinite(at or 0.0) and weight > 0):
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
class _Tab:
    """What is made for a client at one price."""

    answers: dict[str, Sized] = field(default_factory=dict)  # of those that run or have run
    made: int = 0  # output tokens of these, as far as they are charged


@dataclass(slots=True)
class _Client:
    live: int = 0
    waiting: int = 0  # of these: in a queue, new or preempted
    tabs: dict[float, _Tab] = field(default_factory=dict)  # by price; nearly always one at most
    looked_at: int = -1  # the step of which all its tokens are charged


@dataclass(slots=True)
class _Request:
    client: str
    lease: str | None
    usage: _Lease  # its lease's, or one of its own that nobody reads
    answer: Sized
    price: float
    due: int  # prompt tokens to charge at the next admission
    told: int = 0  # output tokens that its lease knows of
    waiting: bool = True
    admitted: bool = False
    cached: int = 0
    charged: int = 0  # prompt tokens charged at the last admission that charged any
    charged_to: int = 0  # where in its prompt they end
    computed: int = 0  # most tokens ever computed; a preemption starts over from 0


@dataclass(slots=True)
class Ledger:
    """Charges requests to the counters and keeps the books of their leases."""

    cost: ServiceCost
    classes: Classes = field(default_factory=Classes)
    counters: VirtualTokenCounters = field(init=False)
    _requests: dict[str, _Request] = field(default_factory=dict)
    _clients: dict[str, _Client] = field(default_factory=dict)
    _served: dict[str, _Client] = field(default_factory=dict)  # of these: with requests admitted
    _leases: dict[str, _Lease] = field(default_factory=dict)
    _changed_leases: set[str | None] = field(default_factory=set)
    _step: int = 0
    _gone: set[str] = field(default_factory=set)  # clients whose last charges are not reported

    def __post_init__(self) -> None:
        """Make the counters, which ask here for what is on the tab."""
        self.counters = VirtualTokenCounters(
            self._take_due, self._take_all_due, classes=self.classes
        )

    def client_of(self, request_id: str) -> str:
        """Return the client of a live request."""
        return self._requests[request_id].client

    def opened(
        self, request_id: str, identity: Identity, prompt_tokens: int, answer: Sized
    ) -> None:
        """Note a new request with a prompt of this length: it waits. ``answer``: the engine's own
        list of the tokens that it has made and accepted, now and later."""
        client, lease = identity.client, identity.lease
        usage = _Lease() if lease is None else self._leases.setdefault(lease, _Lease())
        usage.waiting += 1
        self._changed_leases.add(lease)
        self._requests[request_id] = _Request(
            client, lease, usage, answer, identity.price, prompt_tokens
        )
        self.counters.join(client, identity.weight, identity.counter, identity.groups)
        standing = self._clients.setdefault(client, _Client())
        standing.live += 1
        standing.waiting += 1

    def continued(self, request_id: str, identity: Identity, new_tokens: int) -> None:
        """Note more input for a session that has answered: it waits again, as a new request does.
        Called before the engine makes its answer a part of the prompt and empties it.

        So its client is lifted if nothing else of it waits: a session that lay idle has not saved
        up its idle time. ``identity`` is that of the input; client and lease stay the session's.
        """
        request = self._requests[request_id]
        self._close_answer(request)
        request.due += new_tokens
        self.counters.join(request.client, identity.weight, identity.counter, identity.groups)
        self._wait(request)

    def admitted(self, request_id: str, prompt_tokens: int, cached: int) -> None:
        """Note that a request runs (again), and charge what of its prompt is new.

        Args:
            prompt_tokens: the length of its prompt now. (A session's grows by its answers too.)
            cached: how many of them the prefix cache provides, on its first admission.
        """
        request = self._requests[request_id]
        usage = request.usage
        self._stop_waiting(request)
        self.counters.serve(request.client)
        if not request.admitted:
            request.admitted = True
            standing = self._served[request.client] = self._clients[request.client]
            tab = standing.tabs.setdefault(request.price, _Tab())
            tab.answers[request_id] = request.answer
            usage.waiting -= 1
            usage.running += 1
            request.cached = cached
            usage.cached += cached
        else:
            cached = 0
        self._changed_leases.add(request.lease)
        if new := request.due:
            request.due = 0
            request.charged = new
            request.charged_to = prompt_tokens
            usage.input += new
            self.counters.charge(request.client, request.price * self.cost.of(new, 0, cached))

    def stepped(self) -> None:
        """Note that a step has made tokens. (The hot path: each step.)"""
        self._step += 1

    def preempted(self, request_id: str, computed: int) -> None:
        """Note that a running request waits again; ``computed`` tokens of it were computed."""
        request = self._requests[request_id]
        request.computed = max(request.computed, computed)
        self.counters.rejoin(request.client)
        self._wait(request)

    def ended(self, request_id: str, computed: int) -> str | None:
        """Close a request, for whatever reason it ended, and refund what was not computed.

        Args:
            computed: tokens computed for it, counted from the start of its prompt.

        Returns:
            Its client if there was a refund: its counter has gone down.
        """
        request = self._requests.pop(request_id, None)
        if request is None:
            return None
        self._close_answer(request)
        self._stop_waiting(request)
        self._changed_leases.add(request.lease)
        refund = 0.0
        if request.admitted:
            tabs = self._served[request.client].tabs
            answers = tabs[request.price].answers
            del answers[request_id]
            if not answers:
                del tabs[request.price]
            if not tabs:
                del self._served[request.client]
            request.usage.running -= 1
            done = max(request.cached, request.computed, computed)
            unused = min(request.charged, request.charged_to - done)
            if unused > 0:
                request.usage.input -= unused
                refund = request.price * self.cost.of(unused, 0)
                self.counters.charge(request.client, -refund)
        else:
            request.usage.waiting -= 1
        standing = self._clients[request.client]
        standing.live -= 1
        if not standing.live:
            del self._clients[request.client]
            self._gone.add(request.client)
        return request.client if refund else None

    def report(self) -> tuple[list[list[Any]], dict[str, float]]:
        """Return what changed since the last report: leases, and clients' charges.

        A lease with nothing waiting and nothing running has ended; it is reported this once
        and dropped. Clients with live requests are always among the charges, and so are the groups
        of all that are.
        """
        for standing in self._served.values():
            for tab in standing.tabs.values():
                for request_id in tab.answers:
                    self._tell_lease(self._requests[request_id])
        clients = self._gone.union(self._clients)
        self._gone.clear()
        charged = {
            node: self.counters.charged(node)
            for client in clients
            for node in (client, *self.counters.groups_of(client))
        }
        leases = []
        for lease in self._changed_leases:
            if lease is None:
                continue
            usage = self._leases[lease]
            leases.append(
                [lease, usage.waiting, usage.running, usage.input, usage.cached, usage.output]
            )
            if not usage.waiting and not usage.running:
                del self._leases[lease]
        self._changed_leases.clear()
        return leases, charged

    def set_bases(self, bases: Mapping[str, float]) -> None:
        """Take over bases from the global queue; see ``fairness.counters``."""
        for client, base in bases.items():
            self.counters.set_base(client, base)

    def forget(self, clients: Iterable[str]) -> None:
        """Drop clients that have nothing live here and nothing left to report."""
        for client in clients:
            if client not in self._clients and client not in self._gone:
                self.counters.forget(client)

    def _take_due(self, client: str) -> float:
        """Return the service of what was made for the client since the last look."""
        standing = self._served.get(client)
        if standing is None or standing.looked_at == self._step:
            return 0.0
        return self._look_at(standing)

    def _take_all_due(self) -> list[tuple[str, float]]:
        """The same for all clients; O(admitted), and nothing but once a step."""
        return [(client, due) for client in self._served if (due := self._take_due(client))]

    def _look_at(self, standing: _Client) -> float:
        standing.looked_at = self._step
        due = 0.0
        for price, tab in standing.tabs.items():
            made = sum(map(len, tab.answers.values()))
            due += price * (made - tab.made)
            tab.made = made
        return self.cost.output_weight * due

    def _tell_lease(self, request: _Request) -> None:
        made = len(request.answer)
        if made != request.told:
            request.usage.output += made - request.told
            request.told = made
            self._changed_leases.add(request.lease)

    def _close_answer(self, request: _Request) -> None:
        """Charge all of an answer, which will be gone."""
        if not request.admitted:
            return
        standing = self._served[request.client]
        self.counters.charge(request.client, self._look_at(standing))
        self._tell_lease(request)
        standing.tabs[request.price].made -= request.told
        request.told = 0

    def _wait(self, request: _Request) -> None:
        if not request.waiting:
            request.waiting = True
            self._clients[request.client].waiting += 1

    def _stop_waiting(self, request: _Request) -> None:
        if request.waiting:
            request.waiting = False
            standing = self._clients[request.client]
            standing.waiting -= 1
            if not standing.waiting:
                self.counters.leave(request.client)
