"""What a weight would change: an observation, as demand for `fairness.what_if`. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from fairness.classes import split_class
from fairness.groups import ROOT, groups_within, parent_of_group
from fairness.observe.observation import Observation
from fairness.what_if import NO_CLASSES, Demand, fair_shares

OTHERS = "others of "  # a name that no client can have
LEAST = 1e-3  # of the total: what is less is noise
ALIKE = 0.8  # of what another receives by weight
Kind = Literal["client", "group", "others"]


@dataclass(frozen=True, slots=True)
class Change:
    """name: of a client, or the path of a group. greedy: as if it wanted all it can get, whatever
    it wants now. parent: the group a client stands in, where the observation has no row of it."""

    kind: Literal["client", "group"]
    name: str
    weight: float
    greedy: bool = False
    parent: str = ROOT


@dataclass(frozen=True, slots=True)
class Share:
    """One client, group, or the rest of a group. Service by the second: now as measured, before and
    after as max-min sharing of present demand would have it."""

    kind: Kind
    name: str
    group: str
    weight: float | None
    backlogged: bool
    now_per_s: float
    before_per_s: float
    after_per_s: float


def what_if(
    seen: Observation,
    weights: Mapping[str, float],
    change: Change,
    floors: Mapping[str, float] = NO_CLASSES,
) -> list[Share]:
    """Return what the change would do: clients, what is left of each group, and groups.

    weights: of clients, where the observation does not tell them. floors: of priority classes, the
    highest first. A group that has clients in several classes changes in each. O(rows log rows).
    """
    groups = {f"{row.group}/": row.weight for row in seen.groups}
    now = {row.client: row.rates.service_per_s for row in seen.clients}
    demands = {demand.name: demand for demand in _clients(seen, weights)}
    if change.kind == "client" and change.name not in demands:
        weight = weights.get(change.name, 1.0)
        demands[change.name] = Demand(change.name, change.parent, weight, 0.0)
    for demand, rate in _others(seen, list(demands.values())):
        demands[demand.name], now[demand.name] = demand, rate
    if change.greedy:
        for name in [name for name, demand in demands.items() if _concerns(change, demand)]:
            demands[name] = replace(demands[name], wants=math.inf)
    before = fair_shares(demands.values(), groups, seen.rates.service_per_s, floors)
    changed, changed_groups = dict(demands), dict(groups)
    if change.kind == "client":
        changed[change.name] = replace(demands[change.name], weight=change.weight)
    else:
        places = [group for group in groups if split_class(group)[1] == f"{change.name}/"]
        changed_groups |= dict.fromkeys(places, change.weight)
    after = fair_shares(changed.values(), changed_groups, seen.rates.service_per_s, floors)
    shares = [
        Share(
            "others" if name.startswith(OTHERS) else "client",
            name,
            demand.parent.strip("/"),
            None if name.startswith(OTHERS) else demand.weight,
            demand.wants == math.inf,
            now.get(name, 0.0),
            before[name],
            after[name],
        )
        for name, demand in demands.items()
    ]
    shares += [
        Share(
            "group",
            row.group,
            row.group.rpartition("/")[0],
            row.weight,
            row.waiting > 0,
            row.rates.service_per_s,
            before.get(f"{row.group}/", 0.0),
            after.get(f"{row.group}/", 0.0),
        )
        for row in seen.groups
    ]
    return shares


def _clients(seen: Observation, weights: Mapping[str, float]) -> Iterator[Demand]:
    """Who wants more? Under VTC those of one group that are backlogged all the time receive alike,
    by weight; who has something waiting and receives clearly less is not held back by the queue."""
    weight = {
        row.client: weights.get(row.client, 1.0) if row.weight is None else row.weight
        for row in seen.clients
    }
    level: dict[str, float] = {}
    for row in seen.clients:
        if row.waiting and seen.policy == "vtc":
            own = row.rates.service_per_s / weight[row.client]
            level[row.group] = max(level.get(row.group, 0.0), own)
    for row in seen.clients:
        rate = row.rates.service_per_s
        more = row.waiting and rate / weight[row.client] >= ALIKE * level.get(row.group, 0.0)
        parent = f"{row.group}/" if row.group else ROOT
        yield Demand(row.client, parent, weight[row.client], math.inf if more else rate)


def _others(seen: Observation, clients: list[Demand]) -> Iterator[tuple[Demand, float]]:
    """What is left of each group, as if it were one client, and what that receives now.

    It wants more if any of them waits; then its weight is what it receives next to its neighbours.
    """
    rates = {row.client: row.rates.service_per_s for row in seen.clients}
    left = {f"{row.group}/": row.rates.service_per_s for row in seen.groups}
    rate_of = dict(left)
    left[ROOT] = seen.rates.service_per_s
    for group, rate in rate_of.items():
        outer = parent_of_group(group)
        left[outer] = left.get(outer, 0.0) - rate
    for demand in clients:
        left[demand.parent] = left.get(demand.parent, 0.0) - rates.get(demand.name, 0.0)
    for group, rate in left.items():
        if rate <= LEAST * seen.rates.service_per_s:
            continue
        wants, weight = rate, 1.0
        waiting = [one for one in clients if one.parent == group and one.wants == math.inf]
        if seen.others.waiting:
            wants = math.inf
            received = sum(rates.get(one.name, 0.0) for one in waiting)
            if received > 0:
                weight = rate * sum(one.weight for one in waiting) / received
        yield Demand(f"{OTHERS}{group}", group, weight, wants), rate


def _concerns(change: Change, demand: Demand) -> bool:
    if change.kind == "client":
        return demand.name == change.name
    return f"{change.name}/" in groups_within(split_class(demand.parent)[1])
