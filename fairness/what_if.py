"""What everybody would receive if weights were other ones: max-min shares of present demand. Pure.

Over time VTC hands a pool's service out max-min fairly, on each level of the tree of groups. Pour
water into vessels as wide as the weights of those that stand together: all fill to one level, but
one is closed where it wants no more. A group wants what those in it want together, and what it gets
is poured in it in the same way. (Bertsekas and Gallager, Data Networks, 6.5.2.)

Priority classes stand outermost, and go in order: each gets its floor of what it wants, then the
highest all that it wants, then the next.

What this leaves out: demand changes with service (a client that is answered sooner asks more), and
the total may change with who is served. So it tells where shares go, not to the last per cent.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from fairness.groups import ROOT, parent_of_group

NO_CLASSES: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Demand:
    """A client, or several counted as one. parent: the group it stands in ("acme/ml/"; `ROOT`).
    wants: service by the second; infinite for one that is backlogged."""

    name: str
    parent: str
    weight: float
    wants: float


def fair_shares(
    demands: Iterable[Demand],
    groups: Mapping[str, float],
    capacity: float,
    floors: Mapping[str, float] = NO_CLASSES,
) -> dict[str, float]:
    """Return name -> service by the second, for clients and for the groups they stand in.

    Args:
        demands: of the clients; names differ from those of groups, which end in a slash.
        groups: group -> weight; 1 for one that is not in it.
        capacity: service by the second, of all. It is used up if anyone wants it.
        floors: of priority classes, by their group, the highest first; none if there are none.

    O(n log n).
    """
    children: defaultdict[str, dict[str, tuple[float, float]]] = defaultdict(dict)
    wanted: defaultdict[str, float] = defaultdict(float)
    for demand in demands:
        children[demand.parent][demand.name] = (demand.weight, demand.wants)
        group = demand.parent
        while group != ROOT:
            wanted[group] += demand.wants
            group = parent_of_group(group)
    for group, wants in wanted.items():
        children[parent_of_group(group)][group] = (groups.get(group, 1.0), wants)
    shares: dict[str, float] = {ROOT: capacity}
    open_groups = [ROOT]
    while open_groups:
        group = open_groups.pop()
        if group == ROOT and floors:
            shares |= _in_order(children[group], floors, capacity)
        else:
            shares |= _poured(children[group], shares[group])
        open_groups += (node for node in children[group] if node in children)
    del shares[ROOT]
    return shares


def _in_order(
    classes: Mapping[str, tuple[float, float]], floors: Mapping[str, float], amount: float
) -> dict[str, float]:
    """classes: group -> (its weight, which says nothing, and what it wants)."""
    wants = {name: wanted for name, (_, wanted) in classes.items()}
    shares = {name: min(wanted, floors.get(name, 0.0) * amount) for name, wanted in wants.items()}
    left = amount - math.fsum(shares.values())
    for name in (*floors, *(name for name in wants if name not in floors)):
        if name in shares:
            more = min(wants[name] - shares[name], left)
            shares[name] += more
            left -= more
    return shares


def _poured(vessels: Mapping[str, tuple[float, float]], amount: float) -> dict[str, float]:
    """vessels: name -> (width, where it is closed)."""
    shares: dict[str, float] = {}
    width = math.fsum(weight for weight, _ in vessels.values())
    for name in sorted(vessels, key=lambda name: vessels[name][1] / vessels[name][0]):
        weight, wants = vessels[name]
        share = min(wants, amount * weight / width) if width > 0 else 0.0
        shares[name] = share
        amount -= share
        width -= weight
    return shares
