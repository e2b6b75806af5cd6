"""Limits as values, and what the meters of a level promise over time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairness.limits import (
    MINUTE_MS,
    Limits,
    Rate,
    Rates,
    Terms,
    duration,
    parse_terms,
)
from fairness.store.memory_limits import Held, Meters


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0s"),
        (20, "20ms"),
        (1000, "1s"),
        (1500, "1.5s"),
        (59_001, "59.001s"),
        (60_000, "1m0s"),
        (360_000, "6m0s"),
        (3_600_000, "1h0m0s"),
        (86_400_000 + 62_500, "24h1m2.5s"),
    ],
)
def test_durations_are_written_as_openai_does(milliseconds: int, text: str) -> None:
    assert duration(milliseconds) == text


def test_terms_travel_as_text() -> None:
    terms = Terms((Limits(60, None, 4), Limits(queued_bytes=9, max_wait_s=1.5)), 20, admitted=True)
    assert parse_terms(terms.text()) == (20, True, ((60, 0, 4, 0, 0), (0, 0, 0, 0, 9)))
    assert parse_terms(Terms((Limits(),)).text()) == (-1, False, ((0,) * 5,))


def test_the_tightest_level_is_told() -> None:
    meters = Meters()
    levels = [("alice", (10, 0, 0, 0, 0)), ("acme/", (100, 500, 0, 0, 0))]
    meters.reserve(levels[1:], 100, 0)
    for _ in range(3):
        meters.reserve(levels, 100, 0)
    assert meters.rates(levels, 0) == Rates(Rate(10, 7, 18_000), Rate(500, 100, 48_000))
    for _ in range(95):
        meters.reserve(levels[1:], 0, 0)
    assert meters.rates(levels, 0).requests == Rate(100, 1, 59_400)


def test_who_waits_as_long_as_told_is_let_in() -> None:
    meters, levels, now = Meters(), [("alice", (7, 131, 0, 0, 0))], 0
    for _ in range(200):
        why = meters.refusal(levels, 29, 1, now)
        if why is None:
            meters.reserve(levels, 29, now)
        else:
            assert meters.refusal(levels, 29, 1, now + why.retry_after_ms - 1) is not None
            now += why.retry_after_ms
            assert meters.refusal(levels, 29, 1, now) is None
    assert now > 20 * MINUTE_MS


steps = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "end"]),
        st.integers(0, 40_000),  # milliseconds that pass before
        st.integers(1, 150),  # tokens
        st.integers(0, 9),  # which of those in flight
    ),
    max_size=80,
)


@given(steps=steps, limit=st.integers(20, 200))
def test_over_any_interval_no_more_is_used_than_a_minute_s_worth_and_the_refill(
    steps: list[tuple[str, int, int, int]], limit: int
) -> None:
    """Where estimates are not too low; what they were too high is given back, and used again."""
    meters, now, levels = Meters(), 0, [("alice", (0, limit, 0, 0, 0))]
    running: list[tuple[Held, int]] = []
    events: list[tuple[int, int]] = []  # time, tokens: reserved, or given back (below 0)
    for what, pause, tokens, which in steps:
        now += pause
        estimate = min(tokens, limit)
        if what == "ask" and meters.refusal(levels, estimate, 0, now) is None:
            running.append((meters.reserve(levels, estimate, now), estimate))
            events.append((now, estimate))
        elif what == "end" and running:
            held, estimate = running.pop(which % len(running))
            used = min(tokens, estimate)
            meters.settle(held, used, now)
            events.append((now, used - estimate))
    for first in range(len(events)):
        net = 0
        for at, tokens in events[first:]:
            net += tokens
            assert net <= limit + limit * (at - events[first][0]) / MINUTE_MS + 1e-3


@given(used=st.lists(st.integers(0, 500), min_size=1, max_size=30), limit=st.integers(10, 100))
def test_too_low_an_estimate_is_a_debt_that_is_waited_off(used: list[int], limit: int) -> None:
    meters, now, levels = Meters(), 0, [("alice", (0, limit, 0, 0, 0))]
    for tokens in used:
        why = meters.refusal(levels, 1, 0, now)
        if why is not None:
            now += why.retry_after_ms
            assert meters.refusal(levels, 1, 0, now) is None
        meters.settle(meters.reserve(levels, 1, now), tokens, now)
    assert sum(used[:-1]) <= limit + limit * now / MINUTE_MS


def test_a_meter_that_says_nothing_is_dropped() -> None:
    meters = Meters()
    for n in range(100):
        meters.settle(meters.reserve([(f"client-{n}", (60, 1000, 0, 0, 0))], 10, 0), 10, 0)
    busy = meters.reserve([("busy", (60, 0, 0, 0, 0))], 10, 0)
    for _ in range(10):
        meters.tidy(MINUTE_MS - 1)
    assert len(meters.meters) == 101
    for _ in range(10):
        meters.tidy(MINUTE_MS)
    assert set(meters.meters) == {"busy"}
    meters.settle(busy, 0, MINUTE_MS)
    meters.tidy(2 * MINUTE_MS)
    assert not meters.meters
