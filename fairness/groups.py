"""Groups: the tree that clients stand in, such as organisations and their teams.

A **node** is a client or a group. A group's name is its path with a slash at the end, so it says
what it is and where it stands: ``acme/``, in it ``acme/research/``. (So no client's name may end in
a slash.) Who stands in no group stands at the **root**, ``/``. One at the root that is called
``class:NAME/`` is a priority class (``fairness.classes``).

Each group shares what it gets among those in it by VTC, as the root does: every node has a counter
of its own, which is charged whatever its clients use, divided by its weight. The turn goes from the
root to the node with the smallest counter, and in a group again, down to a client. So shares hold
on each level, and what a client leaves unused goes to its group, whose counter then rises more
slowly, as long as that has anything waiting. (Hierarchical fair queueing: Bennett and Zhang,
SIGCOMM 1996.)
"""

from collections.abc import Iterator
from typing import NamedTuple

ROOT = "/"


class Group(NamedTuple):
    """A group, its share next to those it stands with, and its counter in the global queue, if that
    is known."""

    name: str
    weight: float = 1.0
    counter: float | None = None


def is_group(node: str) -> bool:
    """Return whether this is the name of a group, not of a client."""
    return node.endswith("/")


def parent_of_group(group: str) -> str:
    """Return the group that a group stands in."""
    outer, _, _ = group[:-1].rpartition("/")
    return outer + "/"


def groups_within(group: str) -> Iterator[str]:
    """Yield a group and those it stands in, the innermost first; nothing for the root."""
    while group != ROOT:
        yield group
        group = parent_of_group(group)
