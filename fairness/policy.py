"""Policies: in which order waiting requests are served.

A policy is an object with one method, the **key** of a request; the lowest key is served
first. A queue that holds the requests of a client in one line only ever asks for the key of
the first in each line.

What a policy is not: weights and predictions. A client's weight divides what it is charged
(``fairness.counters``), and a predicted output is charged in advance (``fairness.prediction``), so
weighted VTC is VTC with weights, and VTC with predictions is VTC with predictions.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from fairness.groups import ROOT, groups_within


class Place(NamedTuple):
    """Where a request stands in its client's line; the smaller place is served earlier.

    priority: what its client says; means something among the requests of one client only.
    rank: of the queue that it waits in. number: in that queue.
    """

    priority: int
    rank: int
    number: int


Standing = tuple[float | str, ...]
"""Where a client stands: counter and name of each group on the way to it, outermost first, then its
own. Without groups: (counter, client)."""
Key = tuple[float | str, ...]


def standing(client: str, group: str, counter: Callable[[str], float]) -> Standing:
    """Return where a client in this (innermost) group stands now."""
    if group == ROOT:
        return (counter(client), client)
    path = reversed([client, *groups_within(group)])
    return tuple(part for node in path for part in (counter(node), node))


def ahead(one: Standing, other: Standing) -> float:
    """Return how much more than the other one was served, where their ways part."""
    for at in range(1, min(len(one), len(other)), 2):
        if one[at] != other[at]:
            return float(one[at - 1]) - float(other[at - 1])
    return 0.0


class Policy(Protocol):
    """An order of service."""

    @property
    def name(self) -> str:
        """What ``policy()`` knows it by."""
        ...

    @property
    def lifts(self) -> bool:
        """Is the counter of a client that comes back from idleness lifted to where others are?"""
        ...

    @property
    def by_client(self) -> bool:
        """Does the order look at clients at all, or only at requests?"""
        ...

    def key(self, standing: Standing, place: Place) -> Key:
        """Return the key of a client's request; the lowest is served first."""
        ...


class VTC:
    """Virtual Token Counter (OSDI 2024): the client with the smallest counter goes first.

    Ties go by name, so that runs repeat; within a client, by place.
    """

    name = "vtc"
    lifts = True
    by_client = True

    def key(self, standing: Standing, place: Place) -> Key:
        """Order by counter, then name, on each level of groups, then by place."""
        return standing + place


class LCF(VTC):
    """Least counter first: VTC without the lift. Not fair; the paper's control, for comparison.

    Who was idle has saved up its share, and may then starve the others until it has caught up
    (OSDI 2024, section 5.1).
    """

    name = "lcf"
    lifts = False


class FCFS:
    """First come, first served, whoever sent it: what serving engines do by default.

    Clients still order their own requests by priority, but go before others by none.
    """

    name = "fcfs"
    lifts = True  # keeps the counters fit for VTC, should it be switched on
    by_client = False

    def key(self, standing: Standing, place: Place) -> Key:
        """Order by place alone, without the priority."""
        return (place.rank, place.number)


class Shadow(FCFS):
    """First come, first served; the global queue notes at each grant whom VTC would have chosen
    (``fairness.store.shadow``): to see what would change before one switches."""

    name = "shadow"


_POLICIES: dict[str, Policy] = {p.name: p for p in (VTC(), LCF(), FCFS(), Shadow())}
POLICIES = tuple(_POLICIES)
"""The names of all policies."""


def policy(name: str) -> Policy:
    """Return the policy of this name.

    Raises:
        ValueError: there is none; the message names those there are.
    """
    try:
        return _POLICIES[name]
    except (KeyError, TypeError):
        choices = ", ".join(POLICIES)
        raise ValueError(f"unknown policy {name!r}; choose one of: {choices}") from None
