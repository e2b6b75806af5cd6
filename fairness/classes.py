"""Priority classes: a higher class goes first, and each lower one is owed a floor.

A class is the outermost group of its clients (``fairness.groups``), named ``class:NAME/``, so that
leases, grants and resyncs carry it as they carry groups; no other group's name begins so. Within a
class VTC decides, as ever. Among the classes this file does.

State: ``owed``, in service, of each class that has a floor.

Rules
    1. Whenever service d is charged in the pool (a refund: below 0), each class is owed
       ``floor * d`` more, and the class it is charged to d less.
    2. Of the classes that wait, the one that is owed most goes next, if any is owed more than 0;
       else the highest.
    3. A class that has nothing waiting is owed nothing: idle time is not saved up. But what it
       had in excess stays, until its floor has made up for it.
    4. Who is served is not held to what it had in excess before: ``owed`` is 0 then, if it was
       below. So what a class takes while no higher one waits costs it nothing later, and what it
       is over at any time is no more than its leases of that moment.

Why it is right (docs/theory.md has the proof and the constant C): over any time in which a class
waits, it gets at least ``floor * (all service) - C``, since by rule 1 ``owed`` grows by what is
missing, and by rule 2 it is bounded; and while a higher class waits, a lower one gets at most
``floor * (all service) + C``: then it is served only when it is owed, and rule 4 changes nothing.

Pure; the global queue in memory and the batch use it, and lua/classes.lua does the same. Cost:
O(classes), at most ``MOST``, a charge and a decision.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from fairness.groups import ROOT, Group

PREFIX = "class:"
MOST = 8


class ServiceClass(NamedTuple):
    """A class, and the share of all service that it is owed while it waits."""

    name: str
    floor: float = 0.0


def class_group(name: str) -> str:
    """The group that a class is."""
    return f"{PREFIX}{name}/"


def split_class(group: str) -> tuple[str, str]:
    """The class that a group is in, "" for none, and the group's name within it."""
    if not group.startswith(PREFIX):
        return "", group
    outermost, _, within = group.removeprefix(PREFIX).partition("/")
    return outermost, within


@dataclass(frozen=True, slots=True)
class Classes:
    """The classes of a pool, the highest first; none: there is one line for all.

    Raises:
        ValueError: the floors make no sense.
    """

    classes: tuple[ServiceClass, ...] = ()
    floors: dict[str, float] = field(init=False, compare=False)  # by group, the highest first

    def __post_init__(self) -> None:
        """Check them."""
        floors = {class_group(name): floor for name, floor in self.classes}
        if len(floors) < len(self.classes):
            raise ValueError("the same class stands there twice")
        if len(floors) > MOST:
            raise ValueError(f"there may be {MOST} classes, not {len(floors)}")
        if not all(math.isfinite(floor) and 0 <= floor < 1 for floor in floors.values()):
            raise ValueError("a floor must be 0 or more and below 1")
        if math.fsum(floors.values()) >= 1:
            raise ValueError("the floors add up to 1 or more: nothing is left to the first class")
        if self.classes and self.classes[0].floor:
            raise ValueError("the first class goes first: it has no floor")
        object.__setattr__(self, "floors", floors)

    def __bool__(self) -> bool:
        return bool(self.classes)

    def resolved(self, name: str) -> str:
        """The class that a client is in which is given this one: the first, if there is none of
        that name; "" where there are no classes."""
        if not self.floors or class_group(name) in self.floors:
            return name if self.floors else ""
        return self.classes[0].name

    def put(self, name: str, groups: Iterable[Group]) -> tuple[Group, ...]:
        """The groups of a client in a class, outermost first; in the first class, if there is none
        of that name."""
        if not self.floors:
            return tuple(groups)
        outermost = class_group(self.resolved(name))
        return (
            Group(outermost),
            *(group._replace(name=outermost + group.name) for group in groups),
        )

    def place(self, groups: Iterable[Group]) -> tuple[Group, ...]:
        """The same groups; in the first class, if they are in none that there is now."""
        path = tuple(groups)
        if not self.floors or (path and path[0].name in self.floors):
            return path
        within = (group._replace(name=split_class(group.name)[1]) for group in path)
        return self.put("", (group for group in within if group.name))


class ClassTurns:
    """Whose turn it is among the classes of one queue."""

    def __init__(self, classes: Classes, waits: Callable[[str], bool]) -> None:
        """waits: has this class (by its group) something waiting?"""
        self._ranks = {group: rank for rank, group in enumerate(classes.floors)}
        self._floors = {group: floor for group, floor in classes.floors.items() if floor}
        self._waits = waits
        self.owed = dict.fromkeys(self._floors, 0.0)

    def __contains__(self, node: object) -> bool:
        return node in self._ranks

    def charge(self, outermost: str, service: float) -> None:
        """Note service charged to a client in this outermost group (``ROOT``: in none)."""
        owed = self.owed
        for group, floor in self._floors.items():
            due = owed[group] + floor * service
            if group == outermost:
                due = due - service
            owed[group] = 0.0 if due > 0 and not self._waits(group) else due

    def serve(self, outermost: str) -> None:
        """Note that a request of a client in this outermost group is served, before its charge."""
        if self.owed.get(outermost, 0.0) < 0:
            self.owed[outermost] = 0.0

    def key(self, group: str) -> float:
        """What the order among classes goes by, the lowest first: ``-owed``, else the rank."""
        due = self.owed.get(group, 0.0)
        return -due if due > 0 else self._ranks[group]

    def first(self, waits: Callable[[str], bool]) -> str | None:
        """The class that goes next, of those of which something waits; None for none."""
        return min(filter(waits, self._ranks), key=self.key, default=None)


def outermost_of(group: str) -> str:
    """The outermost group of those that this one stands in; itself for the root."""
    return ROOT if group == ROOT else group.partition("/")[0] + "/"
