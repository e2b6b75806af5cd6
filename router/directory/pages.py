"""Lists of names in pages, from two places: the configuration and the store. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Names:
    """Part of a sorted list. reached: the name up to which this is all there is; None: the list
    ends here."""

    names: tuple[str, ...]
    reached: str | None = None


def page(fixed: Iterable[str], stored: Names, after: str, limit: int) -> Names:
    """The first `limit` of both together behind `after`, each name once; the rest follows with
    `after=reached`. A page may have fewer and not be the last."""
    names = sorted({*stored.names, *fixed})
    names = [
        name
        for name in names
        if name > after and (stored.reached is None or name <= stored.reached)
    ]
    if len(names) > limit:
        return Names(tuple(names[:limit]), names[limit - 1])
    return Names(tuple(names), stored.reached)


def matches(name: str, search: str) -> bool:
    """Does the name contain what is searched for, whatever its case?"""
    return search.casefold() in name.casefold()
