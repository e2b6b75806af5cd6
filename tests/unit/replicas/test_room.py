"""How many more requests fit: a guess that follows what comes."""

from replicas.room import RoomEstimate


def test_nothing_is_known_before_the_first():
    assert RoomEstimate().fits(1_000) is None


def test_the_guess_is_as_large_as_what_came_and_follows():
    room = RoomEstimate()
    room.admitted(100)
    assert (room.fits(1_000), room.fits(99)) == (10, 0)
    for _ in range(200):
        room.admitted(10)
    assert 95 <= room.fits(1_000) <= 100


def test_requests_without_size_are_no_reason_to_divide_by_zero():
    room = RoomEstimate()
    room.admitted(0)
    assert room.fits(10) is None
