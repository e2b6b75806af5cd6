"""/admin/live: a pool while it runs, as the dashboard and `fairlane top` show it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from fairness.groups import ROOT
from fairness.observe.standing import Standing
from router.admin.what_if import Change, what_if
from router.directory.directory import Directory
from router.errors import ApiError, unavailable
from router.live.pools import LivePool, LivePools
from router.turns import Turns
from router.weights import Weights

STATES = 200  # clients at once

Pool = Annotated[str, Query(max_length=1000, description="Name of the model.")]
Span = Literal["15m", "1h", "24h"]  # as in SPANS


def live_router(directory: Directory, pools: LivePools, turns: Mapping[str, Turns]) -> APIRouter:
    """Routes of the resource. pools, turns: by the names of their models."""
    api = APIRouter(prefix="/live", tags=["live"])
    weights = Weights(directory)

    def named(pool: str) -> LivePool:
        if pool not in pools:
            names = ", ".join(pools)
            raise ApiError(404, f"there is no pool {pool!r}; this deployment serves: {names}")
        return pools[pool]

    @api.get("")
    async def latest() -> Response:
        """Pool -> what was seen of it in the last seconds; null if nothing was."""
        return _json({name: pool.latest for name, pool in pools.items()})

    @api.get("/events", response_class=Response)
    async def events(pool: Pool) -> StreamingResponse:
        """Server-sent events `observation`, one every two seconds or so, the last one at once."""
        return StreamingResponse(
            named(pool).feed.watch(),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store"},
        )

    @api.get("/history")
    async def history(pool: Pool, span: Span = "1h") -> Response:
        """The last time as columns, a few hundred points; clients: those that received most."""
        return Response(await named(pool).chart(span), media_type="application/json")

    @api.get("/clients")
    async def states(client: Annotated[list[str], Query(max_length=STATES)]) -> Response:
        """Pool -> client -> counters, what waits and runs, totals; up to 200 clients by name."""
        return _json({name: await _states(pool.standing, client) for name, pool in pools.items()})

    @api.get("/what-if")
    async def what_if_weight(
        pool: Pool,
        weight: Annotated[float, Query(gt=0, le=1e6, allow_inf_nan=False)],
        client: Annotated[str, Query(max_length=260)] = "",
        group: Annotated[str, Query(max_length=260)] = "",
        greedy: bool = False,
    ) -> Response:
        """Where service would go if a client or a group had another weight. Nothing is changed.

        Shares are max-min, of what is wanted now; `greedy`: as if it wanted all it can get."""
        if bool(client) == bool(group):
            raise ApiError(400, "name a client or a group, one of them", param="client")
        seen = named(pool).smoothed()
        if seen is None:
            raise unavailable("nothing was seen of this pool in the last seconds; try again", 2)
        parent = ROOT
        if client:
            standing = await _states(pools[pool].standing, [client])
            parent = standing[client]["group"] if client in standing else ROOT
        unknown = [row.client for row in seen.clients if row.weight is None]
        known = await weights([*unknown, *([client] if client else [])])
        change = Change("client" if client else "group", client or group, weight, greedy, parent)
        return _json(
            {"at_ms": seen.at_ms, "service_per_s": seen.rates.service_per_s}
            | {"shares": what_if(seen, known, change, turns[pool].classes.floors)}
        )

    return api


async def _states(standing: Standing, names: list[str]) -> Mapping[str, dict[str, Any]]:
    states = await standing.states(names)
    return {name: dataclasses.asdict(state) for name, state in states.items()}


def _json(content: Any) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")
