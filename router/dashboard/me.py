"""/me: what a client may know of itself, by its own key. Nothing of others but how many are ahead.

A browser gets a page that asks for the key and keeps it in its tab; with a key in `Authorization`
the answer is JSON. A client's answer is made at most once a second by a router, its usage twice a
minute: to ask more often costs the store nothing.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import date, timedelta
from typing import Any, TypeVar

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fairness.classes import split_class
from fairness.observe.observation import Observation
from fairness.observe.standing import Place
from fairness.store.contract import ClientState, StoreUnavailableError
from fairness.store.usage import day_of, today
from router.admin.guard import Asgi, Receive, Scope, Send
from router.admin.usage_report import Question, rows
from router.clients import Client
from router.dashboard.headers import Hardened
from router.dashboard.refusal import refusal, told
from router.dashboard.static_files import static_file
from router.errors import ApiError, unavailable
from router.live.pools import LivePool, LivePools
from router.turns import Turns

logger = logging.getLogger(__name__)

DAYS = 14
FRESH_S = 1.0
USAGE_FRESH_S = 30.0
REMEMBERED = 1000  # clients
OLDEST_S = 60.0  # of a total that a rate is made of

T = TypeVar("T")
Identify = Callable[[str | None], Awaitable[Client]]


class Remembered:
    """What was made lately, by name; the least recently made goes first."""

    def __init__(self, fresh_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._fresh_s = fresh_s
        self._clock = clock
        self._made: OrderedDict[str, tuple[float, Any]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._made)

    async def get(self, name: str, make: Callable[[], Awaitable[T]]) -> T:
        """What `make` made for this name, now or a moment ago."""
        at, value = self._made.get(name, (-self._fresh_s, None))
        if self._clock() - at >= self._fresh_s:
            value = await make()
            self._made[name] = self._clock(), value
            self._made.move_to_end(name)
            if len(self._made) > REMEMBERED:
                self._made.popitem(last=False)
        found: T = value
        return found


class Rates:
    """Service by the second of clients that the observer has no row of: from one total to the
    next, as they happen to be asked for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._totals: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def next(self, name: str, total: float) -> float | None:
        """None the first time, and after long."""
        now = self._clock()
        at, before = self._totals.pop(name, (-OLDEST_S, 0.0))
        self._totals[name] = now, total
        if len(self._totals) > REMEMBERED:
            self._totals.popitem(last=False)
        return max(0.0, total - before) / (now - at) if 0 < now - at < OLDEST_S else None


class Me:
    """ASGI. identify: the client of an Authorization header, or ApiError. limits: what may wait."""

    def __init__(
        self,
        identify: Identify,
        turns: Mapping[str, Turns],
        live: LivePools,
        limits: Callable[[], Mapping[str, float]],
    ) -> None:
        self._identify = identify
        self._turns = turns
        self._live = live
        self._limits = limits
        self._answers = Remembered(FRESH_S)
        self._usage = Remembered(USAGE_FRESH_S)
        self._rates = Rates()
        routes = [Route("/me", self._me), Route("/me/static/{path:path}", _static)]
        handlers = {HTTPException: told}
        self._app: Asgi = Hardened(Starlette(routes=routes, exception_handlers=handlers))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception:  # Starlette has answered 500 and raises it again for whoever logs
            logger.exception("a request for /me failed by a fault of the router")

    async def _me(self, request: Request) -> Response:
        shown = request.headers.get("authorization")
        if shown is None and "text/html" in request.headers.get("accept", ""):
            return static_file(request, "me.html")
        try:
            client = await self._identify(shown)
            answer = await self._answers.get(client.name, lambda: self._of(client))
            return Response(answer, media_type="application/json")
        except StoreUnavailableError:
            return refusal(unavailable("the store is out of reach; try again", 2))
        except ApiError as error:
            return refusal(error)

    async def _of(self, client: Client) -> bytes:
        usage = await self._usage.get(client.name, lambda: self._used(client.name))
        return orjson.dumps(
            {
                "client": client.name,
                "weight": client.weight,
                "group": client.groups[-1].name if client.groups else None,
                "priority_class": client.priority_class or None,
                "limits": self._limits(),
                "own_limits": own_limits(client),
                "pools": {
                    name: await self._in(name, pool, client.name)
                    for name, pool in self._live.items()
                },
                "usage": usage,
            }
        )

    async def _in(self, name: str, pool: LivePool, client: str) -> dict[str, Any]:
        states = await pool.standing.states([client])
        state = states.get(client) or ClientState(client, 0.0, 0, 0, 0, 0, 0, 0.0)
        line = await pool.standing.in_line(client)
        seen = pool.latest
        rate = self._rate(name, state, seen)
        total = None if seen is None else seen.rates.service_per_s
        return {
            "policy": None if seen is None else seen.policy,
            "service_per_s": rate,
            "share": None if rate is None or not total else min(1.0, rate / total),
            "waiting": state.waiting,
            "running": state.running,
            "waited_ms": line.waited_ms,
            "ahead": ahead(line.places),
            "input_tokens": state.input_tokens,
            "cached_tokens": state.cached_tokens,
            "output_tokens": state.output_tokens,
            "service": state.service,
        }

    def _rate(self, pool: str, state: ClientState, seen: Observation | None) -> float | None:
        measured = self._rates.next(f"{pool}\n{state.client}", state.service)
        for row in () if seen is None else seen.clients:
            if row.client == state.client:
                return row.rates.service_per_s
        return measured if state.waiting or state.running or measured else 0.0

    async def _used(self, client: str) -> list[dict[str, Any]]:
        last = today()
        first = last - timedelta(days=DAYS - 1)
        question = Question(day_of(first), day_of(last), ("day", "model"), (client,))
        found = rows(question, self._turns, _no_groups)
        return [
            {
                "day": date.fromisoformat(day),
                "model": model,
                "requests": used.requests,
                "input_tokens": used.input,
                "cached_tokens": used.cached,
                "output_tokens": used.output,
                "service": used.service,
            }
            async for (day, model), used in found
        ]


def ahead(places: Iterable[Place]) -> list[dict[str, Any]]:
    """Without the level of priority classes: these go in their order, whatever their counters."""
    named = [(*split_class(f"{place.group}/"), place) for place in places if place.group]
    classed = any(priority_class for priority_class, *_ in named)
    told = [dataclasses.asdict(place) | {"group": group.strip("/")} for _, group, place in named]
    return told + [dataclasses.asdict(place) for place in places if not (place.group or classed)]


def own_limits(client: Client) -> dict[str, dict[str, float]]:
    """Of the client and of its groups, by their names; those that are set."""
    levels = {client.name: client.limits} | {group.name: group.limits for group in client.groups}
    return {name: limits.given() for name, limits in levels.items() if limits.given()}


async def _no_groups(_: Iterable[str]) -> Mapping[str, str]:
    return {}


async def _static(request: Request) -> Response:
    return static_file(request, request.path_params["path"])
