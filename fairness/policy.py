"""Policies: in which order waiting requests are served.

A policy is an object with one method, the **key** of a request; the lowest key is served
first. A queue that holds the requests of a client in one line only ever asks for the key of
the first in each line, so a key must not fall along a line.
"""

from typing import Protocol

Place = tuple[int, int]
"""Where a request stands: (rank of its queue, number in it). Smaller is earlier."""

Key = tuple[float, str, Place]


class Policy(Protocol):
    """An order of service."""

    @property
    def name(self) -> str:
        """What ``policy()`` knows it by."""
        ...

    def key(self, counter: float, client: str, place: Place) -> Key:
        """Return the key of a client's request; the lowest is served first."""
        ...


class VTC:
    """Virtual Token Counter (OSDI 2024): the client with the smallest counter goes first.

    Ties go by name, so that runs repeat; within a client, by place.
    """

    name = "vtc"

    def key(self, counter: float, client: str, place: Place) -> Key:
        """Order by counter, then client, then place."""
        return (counter, client, place)


class FCFS:
    """First come, first served, whoever sent it: what serving engines do by default."""

    name = "fcfs"

    def key(self, counter: float, client: str, place: Place) -> Key:
        """Order by place alone."""
        return (0.0, "", place)


_POLICIES: dict[str, Policy] = {p.name: p for p in (VTC(), FCFS())}


def policy(name: str) -> Policy:
    """Return the policy of this name.

    Raises:
        ValueError: there is none; the message names those there are.
    """
    try:
        return _POLICIES[name]
    except (KeyError, TypeError):
        choices = ", ".join(sorted(_POLICIES))
        raise ValueError(f"unknown policy {name!r}; choose one of: {choices}") from None
