"""Usage over some days, summed as asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date

from fairness.store.usage import DailyUsage, UsageSource, Used, date_of, day_of
from router.directory.records import organisation_of

# What rows can be told apart by, in the order in which they are sorted.
DIMENSIONS = ("day", "organisation", "group", "client", "model")
OF_GROUPS = frozenset({"organisation", "group"})

Key = tuple[str, ...]
GroupsOf = Callable[[Iterable[str]], Awaitable[Mapping[str, str]]]


@dataclass(frozen=True, slots=True)
class Question:
    """first, last: days, both included. by: some of `DIMENSIONS`, in their order; usage that
    differs in nothing of that is one row. clients: only these; None for all. group: only clients
    in it or in a team of it; "" for all. after: only rows behind this one."""

    first: int
    last: int
    by: tuple[str, ...]
    clients: tuple[str, ...] | None = None
    group: str = ""
    after: Key | None = None


async def rows(
    question: Question, pools: Mapping[str, UsageSource], groups_of: GroupsOf
) -> AsyncIterator[tuple[Key, Used]]:
    """The rows, sorted by their keys; a part of a key is "" where there is none.

    pools: model -> its usage. Reads the last days of all clients, then day by day, and keeps no
    more than a day, unless all are summed. Raises StoreUnavailableError.
    """
    clients = question.clients
    usages = {model: await DailyUsage.open(pool, clients) for model, pool in pools.items()}
    first = max(question.first, min(usage.oldest for usage in usages.values()))
    by_day = "day" in question.by
    if by_day and question.after is not None:
        first = max(first, day_of(date.fromisoformat(question.after[0])))
    sums: dict[Key, Used] = {}
    for day in range(first, question.last + 1):
        for model, usage in usages.items():
            used = await usage.on(day)
            groups = await _groups(question, used, groups_of)
            for client, what in used.items():
                group = groups.get(client, "")
                if _is_in(group, question.group):
                    key = _key(question.by, day, client, group, model)
                    sums.setdefault(key, Used()).add(what)
        if by_day:
            for row in _sorted(sums, question.after):
                yield row
            sums.clear()
    for row in _sorted(sums, question.after):
        yield row


def _sorted(sums: dict[Key, Used], after: Key | None) -> list[tuple[Key, Used]]:
    return [(key, sums[key]) for key in sorted(sums) if after is None or key > after]


async def _groups(
    question: Question, clients: Iterable[str], groups_of: GroupsOf
) -> Mapping[str, str]:
    if question.group or OF_GROUPS.intersection(question.by):
        return await groups_of(clients)
    return {}


def _is_in(group: str, wanted: str) -> bool:
    return not wanted or group == wanted or organisation_of(group) == wanted


def _key(by: tuple[str, ...], day: int, client: str, group: str, model: str) -> Key:
    parts = {"client": client, "group": group, "model": model}
    if "day" in by:
        parts["day"] = date_of(day).isoformat()
    if "organisation" in by:
        parts["organisation"] = organisation_of(group) or group
    return tuple(parts[dimension] for dimension in by)
