"""/admin/queue: what waits and what was served, and in which order."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from fairness.classes import split_class
from fairness.policy import policy as policy_named
from fairness.store.contract import GroupState
from fairness.store.shadow import total
from router.admin.fields import Body, actor
from router.admin.shadow import client_view, summary
from router.directory.directory import Directory
from router.errors import ApiError
from router.turns import Turns

STATE_FIELDS = (
    "counter",
    "waiting",
    "running",
    "input_tokens",
    "cached_tokens",
    "output_tokens",
    "service",
)
WEIGHTS_PAGE = 1000


class Policy(Body):
    """The order of requests: vtc, fcfs, shadow or lcf."""

    policy: str


def queue_router(directory: Directory, turns: Mapping[str, Turns]) -> APIRouter:
    """Routes of the resource. turns: pool -> its queue."""
    api = APIRouter(prefix="/queue", tags=["queue"])

    @api.get("/clients")
    async def queue_clients(model: str | None = None) -> Response:
        """Every client that the queue has heard of, and all of the configuration, with counters
        and totals over all pools, or in the pool of one model. For 100,000 clients that is
        megabytes. shadow: what VTC would have changed since the policy `shadow` was last switched
        on; null if it never was. priority_class: the one it last stood in, where there are
        classes."""
        if model is not None and model not in turns:
            raise ApiError(404, f"model: there is no pool {model[:200]!r}", param="model")
        asked = turns if model is None else {model: turns[model]}
        rows = await _states(directory, asked)
        report = total([await pool.shadow() for pool in asked.values()])
        for row in rows:
            row["shadow"] = client_view(report, row["client"])
        found = {"shadow": summary(report), "clients": rows}
        return Response(orjson.dumps(found), media_type="application/json")

    @api.get("/groups")
    async def queue_groups() -> Response:
        """Pool -> every group that the queue has heard of: weight, counter, how many of those in it
        have something waiting, and leases of its clients. In a priority class: which, too; of the
        class itself the group is "". A group whose clients are in several has a row in each."""
        found = {
            name: [_group_row(state) for state in await pool.groups()]
            for name, pool in turns.items()
        }
        return Response(orjson.dumps(found), media_type="application/json")

    @api.get("/policy")
    async def get_policy() -> dict[str, str]:
        """Pool -> its policy."""
        return {name: pool.pool.policy for name, pool in turns.items()}

    @api.put("/policy")
    async def set_policy(body: Policy, request: Request) -> Policy:
        """For every pool, on every router and replica within a second."""
        try:
            policy_named(body.policy)
        except ValueError as error:
            raise ApiError(400, f"policy: {error}", param="policy") from None
        who = actor(request)
        await directory.store.note(who, "queue.policy", "policy", {"policy": body.policy})
        for pool in turns.values():
            pool.set_policy(body.policy, secrets.token_hex(8))
        return body

    return api


def _group_row(state: GroupState) -> dict[str, Any]:
    priority_class, group = split_class(state.group)
    return {
        "group": group.removesuffix("/"),
        "weight": state.weight,
        "counter": state.counter,
        "waiting": state.waiting,
        "running": state.running,
    } | ({"priority_class": priority_class} if priority_class else {})


async def _states(directory: Directory, turns: Mapping[str, Turns]) -> list[dict[str, Any]]:
    zeros: dict[str, float] = dict.fromkeys(STATE_FIELDS, 0)
    states: dict[str, dict[str, Any]] = {
        client.name: {"client": client.name, "weight": client.weight, **zeros}
        for client in directory.configured.clients
    }
    for pool in turns.values():
        for state in await pool.clients():
            unknown = {"client": state.client, "weight": None, **zeros}
            row = states.setdefault(state.client, unknown)
            if priority_class := split_class(state.group)[0]:
                row["priority_class"] = priority_class
            for name in STATE_FIELDS:
                row[name] += getattr(state, name)
    unweighted = [name for name, row in states.items() if row["weight"] is None]
    for first in range(0, len(unweighted), WEIGHTS_PAGE):
        records = await directory.store.clients(unweighted[first : first + WEIGHTS_PAGE])
        for name, record in records.items():
            states[name]["weight"] = record.weight
    return list(states.values())
