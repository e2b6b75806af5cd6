"""A router never goes on believing what is not so, whatever happens to the log and the store."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from router.directory.follower import EMPTY, Follower, Position, position_of
from router.directory.records import Actor, Event

SUBJECTS = "abc"
PAGE = 4


def event(position: Position, subject: str) -> Event:
    return Event("{}-{}".format(*position), "client.change", subject, "", Actor("", ""), "{}")


@dataclass
class Store:
    """A log and the values that its entries have set, as many steps back as it is asked for."""

    clock: int = 0
    log: list[Event] = field(default_factory=list)
    values: list[dict[str, int]] = field(default_factory=lambda: [dict.fromkeys(SUBJECTS, 0)])

    def change(self, subject: str) -> None:
        self.clock += 1
        self.log.append(event((self.clock, 0), subject))
        self.values.append(self.values[-1] | {subject: self.clock})

    def lose(self, entries: int) -> None:
        """Fail over to a server that has not heard of the last changes. (A log that was trimmed is
        far longer than what is lost: something of it is left.)"""
        trimmed = len(self.log) < len(self.values) - 1
        entries = min(entries, len(self.log) - trimmed)
        if entries > 0:
            del self.log[-entries:]
            del self.values[-entries:]

    def trim(self, left: int) -> None:
        del self.log[: max(0, len(self.log) - left)]

    def read(self, since: str) -> list[Event]:
        least = EMPTY if since == "-" else position_of(since)
        return [e for e in reversed(self.log) if position_of(e.id) >= least][:PAGE]

    def position(self) -> Position:
        return position_of(self.log[-1].id) if self.log else EMPTY


steps = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.sampled_from(SUBJECTS)),
        st.tuples(st.just("ask"), st.sampled_from(SUBJECTS)),
        st.tuples(st.just("hear"), st.integers(0, 3)),
        st.tuples(st.just("follow"), st.none()),
        st.tuples(st.just("lose"), st.integers(1, 5)),
        st.tuples(st.just("trim"), st.integers(1, 3)),
    ),
    max_size=40,
)


@given(steps)
@settings(max_examples=500, deadline=None)
def test_after_reading_the_log_all_that_is_remembered_is_true(history: list[tuple]) -> None:
    """Lookups are asked, and heard of later, in any order with all else."""
    store, follower = Store(), Follower()
    cache: dict[str, int] = {}
    on_the_way: list[tuple[str, int, Position]] = []

    def hear(number: int) -> None:
        subject, value, position = on_the_way.pop(number)
        if follower.may_keep(position):
            cache[subject] = value

    def follow() -> None:
        forget = follower.read(store.read(follower.since))
        for subject in list(cache):
            if forget is None or subject in forget:
                del cache[subject]

    for step, argument in history:
        if step == "ask":
            on_the_way.append((argument, store.values[-1][argument], store.position()))
        elif step == "hear" and on_the_way:
            hear(argument % len(on_the_way))
        elif step == "follow":
            follow()
        elif step in ("change", "lose", "trim"):
            getattr(store, step)(argument)
    while on_the_way:
        hear(0)
    follow()
    assert cache.items() <= store.values[-1].items()


def test_what_is_looked_up_is_kept_once_the_log_is_followed() -> None:
    follower = Follower()
    assert not follower.may_keep(EMPTY)
    assert follower.read([]) is None
    assert follower.may_keep(EMPTY)
    assert follower.read([]) == set()
    first, second = event((5, 0), "a"), event((5, 1), "b")
    assert follower.read([second, first]) is None  # before the first entry there is no mark
    assert follower.since == "5-1"
    assert follower.may_keep((5, 1))
    assert not follower.may_keep((5, 0))
    assert follower.read([event((6, 0), "c"), second]) == {"c"}
    assert follower.read([]) is None  # the store has lost everything
