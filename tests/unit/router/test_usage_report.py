"""Rows of usage against the plain sum of what was used."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairness.store.usage import LastDays, Used, date_of, day_of, today
from router.admin.usage_report import DIMENSIONS, Key, Question, rows

FIRST = day_of(today())
GROUPS = {"alice": "acme", "bob": "acme/ml", "carol": "other", "dora": ""}
Kept = dict[int, dict[str, Used]]


class Pool:
    """What was used of one model; of each client the last day apart, as on a server."""

    def __init__(self, kept: Kept, oldest: int = FIRST) -> None:
        self._kept = kept
        self._oldest = oldest
        self.asked: list[int] = []

    async def last_days(self, clients: Sequence[str] | None = None) -> LastDays:
        last = {
            client: (day, used)
            for day in sorted(self._kept)
            for client, used in self._kept[day].items()
            if clients is None or client in clients
        }
        return LastDays(self._oldest, last)

    async def used_on(self, day: int, clients: Sequence[str] | None = None) -> dict[str, Used]:
        self.asked.append(day)
        last = (await self.last_days()).used
        return {
            client: used
            for client, used in self._kept.get(day, {}).items()
            if last[client][0] > day and (clients is None or client in clients)
        }


async def groups_of(clients: Iterable[str]) -> Mapping[str, str]:
    return {client: GROUPS[client] for client in clients}


def found(question: Question, pools: Mapping[str, Pool]) -> list[tuple[Key, Used]]:
    async def collect() -> list[tuple[Key, Used]]:
        return [row async for row in rows(question, pools, groups_of)]

    return asyncio.run(collect())


some_use = st.builds(Used, *[st.integers(1, 9)] * 4, *[st.integers(0, 99).map(float)] * 2)
days = st.integers(FIRST, FIRST + 4)
pools = st.dictionaries(
    st.sampled_from(["large", "tiny"]),
    st.dictionaries(days, st.dictionaries(st.sampled_from(sorted(GROUPS)), some_use)),
    min_size=1,
)
questions = st.builds(
    Question,
    days,
    days,
    st.sets(st.sampled_from(DIMENSIONS)).map(
        lambda by: tuple(name for name in DIMENSIONS if name in by)
    ),
    st.none() | st.lists(st.sampled_from(sorted(GROUPS)), max_size=2).map(tuple),
    st.sampled_from(["", "", "acme", "acme/ml", "nobody's"]),
)


@given(pools, questions)
def test_rows_are_the_sums_of_what_was_used(kept: dict[str, Kept], question: Question) -> None:
    expected: dict[Key, Counter[int]] = {}
    for model, by_day in kept.items():
        for day, clients in by_day.items():
            for client, used in clients.items():
                group = GROUPS[client]
                organisation = group.partition("/")[0]
                if question.group not in ("", group, organisation) or not (
                    question.first <= day <= question.last
                    and (question.clients is None or client in question.clients)
                ):
                    continue
                names = (date_of(day).isoformat(), organisation, group, client, model)
                told = dict(zip(DIMENSIONS, names, strict=True))
                key = tuple(told[name] for name in question.by)
                expected.setdefault(key, Counter()).update(dict(enumerate(astuple(used))))
    told_rows = found(question, {model: Pool(by_day) for model, by_day in kept.items()})
    assert [key for key, _ in told_rows] == sorted(expected)
    for key, used in told_rows:
        assert dict(enumerate(astuple(used))) == expected[key]


@given(pools, questions, st.data())
def test_rows_behind_one_are_the_rest(
    kept: dict[str, Kept], question: Question, data: st.DataObject
) -> None:
    sources = {model: Pool(by_day) for model, by_day in kept.items()}
    whole = found(question, sources)
    if whole:
        place = data.draw(st.integers(0, len(whole) - 1))
        assert found(replace(question, after=whole[place][0]), sources) == whole[place + 1 :]


@pytest.mark.parametrize("by", [("day", "client"), ("client",)])
def test_no_day_is_read_that_is_not_kept_or_was_told(by: tuple[str, ...]) -> None:
    pool = Pool({}, oldest=FIRST + 3)
    found(Question(FIRST - 1000, FIRST + 6, by), {"tiny": pool})
    assert pool.asked == [FIRST + 3, FIRST + 4, FIRST + 5, FIRST + 6]
    pool.asked.clear()
    if "day" in by:
        after = (date_of(FIRST + 5).isoformat(), "alice")
        found(Question(FIRST, FIRST + 6, by, after=after), {"tiny": pool})
        assert pool.asked == [FIRST + 5, FIRST + 6]
