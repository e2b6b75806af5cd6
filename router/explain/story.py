"""One request's story: what happened to it in this router, when, and why.

Facts only, a bounded number of them, and nothing of a body or a key. Whoever has something to tell
of a request at its end (`/admin/explain`, traces, the access log) takes it from here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fairness.classes import split_class
from fairness.cost import ServiceCost
from fairness.store.contract import Grant
from fairness.store.explain import End, Place, Standing
from router.clients import Client

if TYPE_CHECKING:
    from router.tracing import RequestTrace

TRIES_KEPT = 8  # of grants; more than a request is given


@dataclass(slots=True)
class Try:
    """One grant: when it was heard of, when its replica was asked, when that was over. failed: why
    the replica gave no answer. end: how the queue has settled it."""

    grant: Grant
    heard: float
    asked: float | None = None
    over: float | None = None
    failed: str = ""
    end: End | None = None


@dataclass(slots=True)
class Story:
    """Times are of `time.monotonic`; `at` is Unix seconds, of the moment `born`.

    request: its id. kept: for /admin/explain. state: waiting, running, done, cancelled (by its
    client), refused (by this router), failed (cut off in its answer). trace: if it is traced.
    price: of its model, next to its pool's. priority_class: "" where there are none.
    finished: called when all is known. version: grows with each change.
    """

    router: str
    pool: str
    client: Client
    path: str
    size: int
    priority: int
    request: str
    born: float
    at: float
    finished: Callable[[Story], None]
    kept: bool = False
    price: float = 1.0
    priority_class: str = ""
    submitted: float | None = None
    degraded: bool = False
    standing: Standing | None = None
    tries: list[Try] = field(default_factory=list)
    answered: float | None = None
    ended: float | None = None
    state: str = "waiting"
    status: int | None = None
    why: str = ""
    trace: RequestTrace | None = None
    version: int = 0
    written: int = 0  # the version that the store has

    @property
    def open_try(self) -> Try | None:
        """The last grant, if the queue has not told of its end."""
        if not self.tries:
            return None
        last = self.tries[-1]
        return None if last.end is not None or last.failed else last

    def stand(self, standing: Standing) -> None:
        """The queue's word on who is before it; the first counts."""
        if self.standing is None:
            self.standing = standing
            self.version += 1

    def grant(self, grant: Grant) -> None:
        """Its turn has come."""
        if len(self.tries) < TRIES_KEPT:
            self.tries.append(Try(grant, time.monotonic()))
        self.state = "running"
        self.version += 1

    def ask(self) -> None:
        """The replica of the last grant is asked."""
        if self.tries:
            self.tries[-1].asked = time.monotonic()

    def answer(self) -> None:
        """Its answer begins."""
        self.answered = time.monotonic()
        self.version += 1

    def fail(self, why: str) -> None:
        """That replica gave no answer: back to the line."""
        if self.tries:
            self.tries[-1].failed = why
            self.tries[-1].over = time.monotonic()
        self.state = "waiting"
        self.version += 1

    def settle(self, end: End) -> None:
        """The queue's word on the end of one of its leases."""
        for each in self.tries:
            if each.grant.lease == end.lease:
                each.end = end
                self.version += 1

    def end(self, state: str, why: str = "", status: int | None = None) -> None:
        """It is over for its client."""
        self.ended = time.monotonic()
        self.state, self.why, self.status = state, why, status
        if self.tries and self.tries[-1].over is None:
            self.tries[-1].over = self.ended
        self.version += 1

    def facts(self, cost: ServiceCost) -> dict[str, Any]:
        """All of it, for JSON; `router/admin/explain.py` describes the fields."""
        return {
            "request": self.request,
            "trace_id": self.trace.trace_id if self.trace is not None else None,
            "router": self.router,
            "model": self.pool,
            "client": self.client.name,
            "groups": [group.name for group in self.client.groups],
            "weight": self.client.weight,
            "priority": self.priority,
            "priority_class": self.priority_class or None,
            "price": self.price,
            "path": self.path,
            "body_bytes": self.size,
            "received_at": datetime.fromtimestamp(self.at, UTC).isoformat(timespec="milliseconds"),
            "state": self.state,
            "status": self.status,
            "why": self.why,
            "degraded": self.degraded,
            "waited_ms": self._waited_ms(),
            "first_byte_ms": self._since_birth(self.answered),
            "ended_ms": self._since_birth(self.ended),
            "standing": _standing(self.standing),
            "grants": [self._grant(each, cost.times(self.price)) for each in self.tries],
        }

    def _since_birth(self, moment: float | None) -> float | None:
        return None if moment is None else round((moment - self.born) * 1000, 3)

    def _waited_ms(self) -> float | None:
        """In line until its last grant, its end or now."""
        if self.submitted is None:
            return None
        if self.tries and not self.tries[-1].failed:
            until = self.tries[-1].heard
        else:
            until = time.monotonic() if self.ended is None else self.ended
        return round((until - self.submitted) * 1000, 3)

    def _grant(self, each: Try, cost: ServiceCost) -> dict[str, Any]:
        grant, choice = each.grant, each.grant.choice
        told: dict[str, Any] = {
            "lease": grant.lease,
            "replica": grant.replica,
            "granted_ms": self._since_birth(each.heard),
            "counter_after": grant.counter,
            "failed": each.failed or None,
            "turn_under_vtc": None,
            "chosen": None,
            "charged": None,
            "end": None,
        }
        if choice is not None:
            told["turn_under_vtc"] = choice.turn or None
            if choice.credits:
                told["chosen"] = {
                    "credits": choice.credits,
                    "next_replica": choice.other or None,
                    "next_credits": choice.other_credits,
                }
            of_input = choice.charged - cost.output_weight * choice.tokens
            told["charged"] = {
                "service": choice.charged,
                "input_tokens": round(of_input / cost.input_weight) if cost.input_weight else None,
                "output_tokens": choice.tokens,
            }
        if each.end is not None:
            told["end"] = _end(each.end, choice.charged if choice else None)
        return told


def _standing(standing: Standing | None) -> dict[str, Any] | None:
    if standing is None:
        return None
    classes = [place for place in standing.levels if _is_class(place)]
    return {
        "policy": standing.policy,
        "requests_before": standing.before_it,
        "own_requests_before": standing.of_client,
        "priority_class": next((_class(place) for place in classes), None),
        "levels": [_place(place) for place in standing.levels if place not in classes],
    }


def _is_class(place: Place) -> bool:
    return split_class(place.node)[0] != "" and split_class(place.node)[1] == ""


def _class(place: Place) -> dict[str, Any]:
    return {
        "name": split_class(place.node)[0],
        "owed": place.counter,
        "ahead": [{"name": split_class(name)[0], "owed": owed} for name, owed in place.first],
    }


def _name(node: str) -> str:
    """Of a client or a group, without its class."""
    return split_class(node)[1].removesuffix("/") if node.endswith("/") else node


def _place(place: Place) -> dict[str, Any]:
    return {
        "name": _name(place.node),
        "group": place.node.endswith("/"),
        "counter": place.counter,
        "ahead": place.ahead,
        "first": [
            {"name": _name(name), "counter": counter, "by": place.counter - counter}
            for name, counter in place.first
        ],
    }


def _end(end: End, charged_first: float | None) -> dict[str, Any]:
    return {
        "how": end.how,
        "input_tokens": end.input,
        "cached_tokens": end.cached,
        "output_tokens": end.output,
        "charged_before": end.charged,
        "service": end.service,
        "correction": None if charged_first is None else end.service - charged_first,
    }
