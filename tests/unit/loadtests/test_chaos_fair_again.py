"""Seconds until two equal clients are served alike again, from curves made by hand."""

import pytest

from fairness.measures import ServiceCurve
from loadtests.chaos.fair_again import Fair, seconds_to_fair

END = 60.0
FAULT = 20.0


def curve(*rates: tuple[float, float]) -> ServiceCurve:
    """Service at these rates, each from its time on; a delivery every 0.1 s."""
    times, totals, total = [], [], 0.0
    for k in range(1, int(END * 10) + 1):
        now = k / 10
        rate = [r for start, r in rates if start < now][-1]
        total += rate / 10
        times.append(now)
        totals.append(total)
    return ServiceCurve(tuple(times), tuple(totals))


EVEN = curve((0, 100))
WIDE = Fair(gap=1e9)


def test_a_pool_that_stays_fair_takes_no_time() -> None:
    assert seconds_to_fair(EVEN, EVEN, FAULT, END, WIDE) == 0.0


def test_a_tilt_that_ends_is_waited_for() -> None:
    greedy = curve((0, 100), (20, 300), (30, 100))
    # A window of 5 s that has 0.83 s of tilt left in it is at 60%.
    seconds = seconds_to_fair(greedy, EVEN, FAULT, END, WIDE)
    assert seconds == pytest.approx(10 - 5 / 4, abs=0.5)
    assert seconds_to_fair(EVEN, greedy, FAULT, END, WIDE) == seconds


def test_what_happened_before_is_not_held_against_it() -> None:
    ahead = curve((0, 100_000), (20, 100))
    assert seconds_to_fair(ahead, EVEN, FAULT, END, Fair(gap=50)) == 0.0


def test_a_tilt_that_never_ends_is_never_fair() -> None:
    assert seconds_to_fair(curve((0, 100), (20, 300)), EVEN, FAULT, END, WIDE) is None


def test_a_small_tilt_breaks_the_gap_in_the_end() -> None:
    tilted = curve((0, 110))  # 52% in each window; 400 ahead after 40 s
    assert seconds_to_fair(tilted, EVEN, FAULT, END, Fair(gap=401)) == 0.0
    seconds = seconds_to_fair(tilted, EVEN, FAULT, END, Fair(gap=200))
    assert seconds == pytest.approx(20, abs=0.5)
    assert seconds_to_fair(tilted, EVEN, FAULT, END, Fair(gap=90)) is None


def test_a_gap_within_a_window_counts_too() -> None:
    # Each has the other's share for two seconds in turn: even over 5 s, a gap of 400 between.
    a, b = curve((0, 100), (31, 300), (33, 100)), curve((0, 100), (33, 300), (35, 100))
    assert seconds_to_fair(a, b, FAULT, END, Fair(gap=300)) > 10
    assert seconds_to_fair(a, b, FAULT, END, Fair(gap=500)) < 10


def test_nobody_served_is_not_fair() -> None:
    silent = curve((0, 100), (20, 0), (35, 100))
    seconds = seconds_to_fair(silent, silent, FAULT, END, WIDE)
    assert seconds is not None and 10 <= seconds <= 15


def test_what_cannot_be_judged_is_not_fair() -> None:
    assert seconds_to_fair(EVEN, EVEN, END - 9, END, WIDE) is None
    assert seconds_to_fair(EVEN, EVEN, END + 1, END, WIDE) is None
