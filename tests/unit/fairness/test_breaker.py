"""A store that is gone costs nobody's time, and one that is back is used at once."""

from __future__ import annotations

import pytest

from fairness.store.breaker import (
    FAILURES,
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    Breaker,
    BreakerOpenError,
    Permit,
)


class World:
    """A breaker, its clock, and a random source that always says the same."""

    def __init__(self, random: float = 0.0) -> None:
        self.now = 100.0
        self.random = random
        self.breaker = Breaker(lambda: self.now, lambda: self.random)

    def fail(self, times: int = FAILURES) -> None:
        for _ in range(times):
            self.breaker.failed(self.breaker.admit())

    def pause(self) -> float:
        with pytest.raises(BreakerOpenError) as refused:
            self.breaker.admit()
        return refused.value.retry_in_s

    def probe(self) -> Permit:
        """Wait for the next probe and let it out."""
        self.now += self.pause()
        permit = self.breaker.admit()
        assert permit is Permit.PROBE
        return permit


def test_failures_here_and_there_do_not_open_it() -> None:
    world = World()
    for _ in range(10):
        world.fail(FAILURES - 1)
        world.breaker.succeeded(world.breaker.admit())
    assert world.breaker.closed


def test_failures_in_a_row_open_it_and_calls_are_told_how_long_to_wait() -> None:
    world = World()
    world.fail()
    assert not world.breaker.closed
    assert world.pause() == pytest.approx(FIRST_PAUSE_S)
    world.now += FIRST_PAUSE_S / 2
    assert world.pause() == pytest.approx(FIRST_PAUSE_S / 2)


def test_the_pause_doubles_with_each_failed_probe_up_to_a_second() -> None:
    world = World()
    world.fail()
    pauses = []
    for _ in range(8):
        pauses.append(world.pause())
        world.breaker.failed(world.probe())
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1, 1, 1, 1])
    assert max(pauses) <= LONGEST_PAUSE_S


def test_pauses_are_jittered_downwards_by_up_to_a_half() -> None:
    shortest = World(random=0.9999999)
    shortest.fail()
    assert shortest.pause() == pytest.approx(FIRST_PAUSE_S / 2, rel=1e-4)
    middle = World(random=0.5)
    middle.fail()
    assert middle.pause() == pytest.approx(FIRST_PAUSE_S * 0.75)


def test_only_one_probe_is_out_at_a_time() -> None:
    world = World()
    world.fail()
    permit = world.probe()
    assert world.pause() > 0
    world.now += 60  # however long it takes
    assert world.pause() == FIRST_PAUSE_S
    world.breaker.succeeded(permit)
    assert world.breaker.admit() is Permit.CALL


def test_a_success_closes_it_and_the_next_trouble_starts_small() -> None:
    world = World()
    world.fail()
    for _ in range(5):
        world.breaker.failed(world.probe())
    world.breaker.succeeded(world.probe())
    assert world.breaker.closed
    world.fail(FAILURES - 1)
    assert world.breaker.closed
    world.fail(1)
    assert world.pause() == pytest.approx(FIRST_PAUSE_S)


def test_a_probe_that_was_given_up_leaves_its_place_to_another() -> None:
    world = World()
    world.fail()
    world.breaker.dropped(world.probe())
    assert world.breaker.admit() is Permit.PROBE


def test_late_failures_of_calls_that_set_out_earlier_are_no_news() -> None:
    world = World()
    late = [world.breaker.admit() for _ in range(5)]
    world.fail()
    probe = world.probe()
    for permit in late:
        world.breaker.failed(permit)
    assert world.pause() == FIRST_PAUSE_S  # the probe is still out
    world.breaker.failed(probe)
    assert world.pause() == pytest.approx(2 * FIRST_PAUSE_S)


def test_a_late_success_closes_it() -> None:
    world = World()
    late = world.breaker.admit()
    world.fail()
    world.breaker.succeeded(late)
    assert world.breaker.closed
