"""The heap whose keys change inside it, against ``min``."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairness.lowest_first import LowestFirst

NAMES = [f"m{number}" for number in range(8)]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "discard", "change"]),
        st.sampled_from(NAMES),
        st.integers(-5, 5),
    ),
    max_size=200,
)


@given(STEPS)
def test_the_lowest_is_the_minimum_after_any_history(steps):
    keys = dict.fromkeys(NAMES, 0)
    heap = LowestFirst(lambda name: (keys[name],))
    members: set[str] = set()
    for verb, name, change in steps:
        if verb == "discard":
            heap.discard(name)
            members.discard(name)
        else:
            keys[name] += change
            if verb == "add" or (change < 0 and name in members):
                heap.add(name)
                members.add(name)
        expected = min(members, key=lambda member: (keys[member], member), default=None)
        assert heap.lowest() == expected
        assert set(heap) == members and len(heap) == len(members)
        assert len(heap._heap) <= 2 * len(members) + 16


def test_entries_are_bounded_without_anyone_asking_for_the_lowest():
    keys = dict.fromkeys(NAMES, 0)
    heap = LowestFirst(lambda name: (keys[name],))
    for _ in range(1_000):
        for name in NAMES:
            keys[name] -= 1
            heap.add(name)
    assert len(heap._heap) <= 2 * len(NAMES) + 16
    for name in NAMES:
        heap.discard(name)
    assert len(heap._heap) <= 16
    assert heap.lowest() is None


@pytest.mark.parametrize("members", [10, 1_000])
def test_a_rise_costs_nothing_until_somebody_asks(members):
    asked = 0

    def key(name: str) -> tuple[int]:
        nonlocal asked
        asked += 1
        return (keys[name],)

    keys = {f"m{number}": number for number in range(members)}
    heap = LowestFirst(key)
    for name in keys:
        heap.add(name)
    asked = 0
    for name in keys:
        keys[name] += 5 * members
    assert asked == 0
    keys["m0"] = 0
    heap.add("m0")
    assert heap.lowest() == "m0"
    assert asked <= 3
