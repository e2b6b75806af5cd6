"""What fair would have been: max-min shares, worked out on their own.

Nothing of `fairness/` is used here, or the tests would compare the code with itself. (The manner is
that of Kubernetes API Priority and Fairness, whose tests hold its queues against `fairAlloc`.)

**Max-min** (weighted): pour water into vessels as wide as the clients' weights, all at one level,
each closed at its demand, until the capacity is used up. Nobody gets more than it asks, who gets
less than it asks is at the highest level, and raising anyone means lowering someone no higher.

**Over time** the same is poured again and again: between two arrivals the amount that the servers
gave in that time goes, max-min, to what is still asked for then. (Generalized processor sharing:
the fluid that fair queueing imitates.) Idle time is not saved up: what was not asked for then is
not owed now.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

Path = Sequence[tuple[str, float, object]]  # groups, outermost first: name, weight


class Arrival(NamedTuple):
    """A client asks for so much service at this time (seconds)."""

    time: float
    client: str
    service: float


def max_min(
    demands: Mapping[str, float], capacity: float, weights: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Share `capacity` among `demands` max-min fairly. A weight that is not given is 1."""
    width = {client: (weights or {}).get(client, 1.0) for client in demands}
    by_level = sorted(demands, key=lambda client: demands[client] / width[client])
    shares = dict.fromkeys(demands, 0.0)
    left = capacity
    for position, client in enumerate(by_level):
        still_open = by_level[position:]
        level = left / sum(width[c] for c in still_open)
        if demands[client] / width[client] > level:
            shares |= {thirsty: width[thirsty] * level for thirsty in still_open}
            break
        shares[client] = demands[client]
        left = max(0.0, left - demands[client])
    return shares


def tree_max_min(
    demands: Mapping[str, float],
    capacity: float,
    weights: Mapping[str, float] | None = None,
    groups: Mapping[str, Path] | None = None,
) -> dict[str, float]:
    """The same in a tree: a group's part is poured in it, like the whole at the root."""
    inside: dict[str, dict[str, float]] = {}
    for client, demand in demands.items():
        path = (groups or {}).get(client, ())
        inside.setdefault(path[0][0] if path else client, {})[client] = demand
    deeper = {client: path[1:] for client, path in (groups or {}).items()}
    width = {path[0][0]: path[0][1] for path in (groups or {}).values() if path}
    asked = {node: sum(of.values()) for node, of in inside.items()}
    parts = max_min(asked, capacity, {**(weights or {}), **width})
    shares = {}
    for node, of in inside.items():
        alone = set(of) == {node}
        shares |= {node: parts[node]} if alone else tree_max_min(of, parts[node], weights, deeper)
    return shares


def pools_max_min(
    capacities: Mapping[str, float],
    users: Mapping[str, frozenset[str]],
    weights: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Share several pools max-min, each client served by those it uses, and never satisfied.

    The scarcest set of pools (least capacity for the weight of those that have no other) is shared
    by these alone; the rest is poured again without them. O(2 to the pools).
    """
    width = {client: (weights or {}).get(client, 1.0) for client in users}

    def level(pools: frozenset[str]) -> float:
        bound = sum(width[client] for client, used in users.items() if used <= pools)
        return sum(capacities[pool] for pool in pools) / bound if bound else float("inf")

    if not users:
        return {}
    sets = [
        frozenset(some)
        for size in range(1, len(capacities) + 1)
        for some in combinations(sorted(capacities), size)
    ]
    scarcest = min(sets, key=level)
    first = {c: width[c] * level(scarcest) for c, used in users.items() if used <= scarcest}
    rest = {c: used - scarcest for c, used in users.items() if c not in first}
    left = {pool: size for pool, size in capacities.items() if pool not in scarcest}
    return first | pools_max_min(left, rest, weights)


class Given(NamedTuple):
    """What the servers gave to all clients together: `totals[k]` up to and including `times[k]`."""

    times: Sequence[float]
    totals: Sequence[float]

    def by(self, time: float) -> float:
        k = bisect_right(self.times, time)
        return self.totals[k - 1] if k else 0.0


def fair_service(
    arrivals: Iterable[Arrival],
    given: Given,
    until: float,
    weights: Mapping[str, float] | None = None,
    groups: Mapping[str, Path] | None = None,
) -> dict[str, float]:
    """Return what each client should have received by `until`."""
    received: dict[str, float] = {}
    asked: dict[str, float] = {}
    before = 0.0

    def pour(total: float) -> None:
        nonlocal before
        if total > before:
            for client, share in tree_max_min(asked, total - before, weights, groups).items():
                received[client] = received.get(client, 0.0) + share
                asked[client] -= share
                if asked[client] <= 1e-9:
                    del asked[client]
            before = total

    for arrival in sorted(arrivals):
        if arrival.time > until:
            break
        pour(given.by(arrival.time))
        received.setdefault(arrival.client, 0.0)
        asked[arrival.client] = asked.get(arrival.client, 0.0) + arrival.service
    pour(given.by(until))
    return received
