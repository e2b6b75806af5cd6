"""What a router remembers of keys is bounded, and forgotten by what it is about."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.clients import Client
from router.directory.cache import Entry, KeyCache


def entry(client: str, *groups: str) -> Entry:
    subjects = (f"client:{client}", *(f"group:{group}" for group in groups))
    return Entry(Client(client), subjects=subjects)


def test_changes_of_a_client_or_its_groups_forget_its_keys() -> None:
    cache = KeyCache()
    cache.put("1", entry("alice", "acme", "acme/ml"))
    cache.put("2", entry("alice", "acme", "acme/ml"))
    cache.put("3", entry("bob", "acme"))
    cache.put("4", entry("carol"))
    cache.forget(["group:acme/ml"])
    assert [cache.get(key) is None for key in "1234"] == [True, True, False, False]
    cache.forget(["group:acme"])
    assert [cache.get(key) is None for key in "1234"] == [True, True, True, False]
    cache.forget(["client:carol"])
    assert [cache.get(key) for key in "1234"] == [None] * 4
    assert len(cache) == 0
    cache.put("1", entry("alice", "acme"))  # as it is now
    assert cache.get("1") is not None


def test_any_change_may_give_somebody_a_key_that_was_nobody_s() -> None:
    cache = KeyCache()
    cache.put("1", None)
    assert cache.is_unknown("1")
    cache.forget([])
    assert cache.is_unknown("1")
    cache.forget(["client:alice"])
    assert not cache.is_unknown("1")


def test_the_least_recently_used_makes_room_and_strangers_push_nobody_out() -> None:
    cache = KeyCache(known=2, unknown=2)
    for key in "ab":
        cache.put(key, entry("alice"))
    assert cache.get("a") is not None
    cache.put("c", entry("bob"))
    assert [cache.get(key) is None for key in "abc"] == [False, True, False]
    for number in range(100):
        cache.put(f"stranger-{number}", None)
    assert len(cache) == 4
    assert cache.get("a") is not None


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 9), st.sampled_from(["a", "b", None])),
            st.tuples(st.just("forget"), st.sampled_from(["client:a", "client:b", "group:g"])),
            st.tuples(st.just("clear")),
        )
    )
)
def test_it_never_exceeds_its_bounds_and_never_remembers_what_was_forgotten(steps: list) -> None:
    cache = KeyCache(known=3, unknown=2)
    put: dict[str, str | None] = {}
    for step, *arguments in steps:
        if step == "put":
            key, client = str(arguments[0]), arguments[1]
            cache.put(key, None if client is None else entry(client, "g"))
            put[key] = client
        elif step == "forget":
            cache.forget(arguments)
            subject = arguments[0].partition(":")[2]
            put = {k: c for k, c in put.items() if c is not None and subject not in (c, "g")}
        else:
            cache.clear()
            put.clear()
        assert len(cache) <= 5
        for key in map(str, range(10)):
            known = cache.get(key)
            if known is not None:
                assert known.client.name == put[key]
            if cache.is_unknown(key):
                assert known is None
                assert put[key] is None
