"""A replica's bookkeeping: windows, settlements, what is told and what is computed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairness.grant_token import GrantToken
from fairness.store.contract import Usage
from replicas.lease_book import DuplicateLeaseError, EngineCall, Lease, LeaseBook


def token(lease: str, client: str = "alice") -> GrantToken:
    return GrantToken(lease, client, "replica-1", expires=0)


def answer(lease: Lease, told: int, complete: bool = True) -> None:
    lease.calls.append(EngineCall(input=10, outputs={0: told}, complete=complete))


def test_a_lease_that_came_to_its_end_is_settled_with_what_the_client_was_told() -> None:
    book = LeaseBook(lookahead=2, slots=0)
    lease = book.open(token("r1.1"))
    book.update([("r1.1", 0, 1, 10, 0, 6)])
    answer(lease, told=5)  # a stop string cut what the engine made
    book.close(lease)
    assert book.settlements() == [("r1.1", Usage(10, 0, 5))]


def test_a_lease_cut_off_waits_for_the_engines_last_word() -> None:
    book = LeaseBook(lookahead=2, slots=0)
    lease = book.open(token("r1.1"))
    answer(lease, told=5, complete=False)
    book.update([("r1.1", 0, 1, 10, 0, 5)])
    book.close(lease)
    assert book.settlements() == []
    book.update([("r1.1", 0, 0, 10, 0, 7)])
    assert book.settlements() == [("r1.1", Usage(10, 0, 7))]


def test_a_lease_whose_requests_come_one_by_one_adds_up() -> None:
    book = LeaseBook(lookahead=2, slots=0)
    lease = book.open(token("r1.1"))
    answer(lease, told=0, complete=False)
    book.update([("r1.1", 0, 0, 10, 0, 3)])  # the first prompt's request has ended
    book.update([("r1.1", 0, 1, 10, 0, 1)])  # the second prompt's begins
    assert book.take_charges() == [("r1.1", Usage(20, 0, 4))]
    book.close(lease)
    book.update([("r1.1", 0, 0, 10, 0, 2)])
    assert book.settlements() == [("r1.1", Usage(20, 0, 5))]


def test_a_lease_the_engine_forgot_is_given_up() -> None:
    book = LeaseBook(lookahead=2, slots=0)
    lease = book.open(token("r1.1"))
    answer(lease, told=0, complete=False)
    book.close(lease)
    book.give_up(lease)
    assert book.settlements() == [("r1.1", Usage())]


def test_a_refused_request_is_settled_for_nothing() -> None:
    book = LeaseBook(lookahead=2, slots=0)
    book.close(book.open(token("r1.1")))
    assert book.settlements() == [("r1.1", Usage())]


def test_a_lease_is_taken_once() -> None:
    book = LeaseBook(lookahead=2, slots=0)
    book.close(book.open(token("r1.1")))
    with pytest.raises(DuplicateLeaseError):
        book.open(token("r1.1"))


def test_a_pressed_engine_takes_no_more_than_the_lookahead() -> None:
    book = LeaseBook(lookahead=2, slots=8)
    book.pressed = True
    book.open(token("r1.1"))
    book.open(token("r2.1"))
    assert (book.limit, book.arrived) == (2, 2)
    book.update([("r1.1", 1, 0, 0, 0, 0)])  # in the engine's queue
    assert book.limit == 2
    book.update([("r1.1", 0, 1, 10, 0, 0)])  # in the batch
    book.update([("r1.1", 0, 1, 10, 0, 1)])
    assert book.limit == 3
    book.draining = True
    assert book.limit == 0


def test_an_idle_engine_is_filled_by_doubling() -> None:
    """No more waits than runs: what runs has shown that it fits."""
    book = LeaseBook(lookahead=2, slots=8)
    limits = []
    for _ in range(4):
        limits.append(book.limit)
        fresh = range(book.arrived, book.limit)
        for n in fresh:
            book.open(token(f"r{n}.1"))
        assert book.room == 0
        book.update([(f"r{n}.1", 0, 1, 10, 0, 0) for n in fresh])
    assert limits == [2, 4, 8, 8 + 2]


def test_memory_that_is_spoken_for_is_not_offered() -> None:
    """What fits by the engine's own guess, and one more to find the moment when it does."""
    book = LeaseBook(lookahead=4, slots=100)
    for number in range(20):
        book.open(token(f"r{number}.1"))
        book.update([(f"r{number}.1", 0, 1, 10, 0, 0)])
    assert book.room == 20  # as many as run
    book.fits = 3
    assert book.room == 4
    book.fits = 0
    assert book.room == 1
    book.open(token("r20.1"))
    assert book.room == 0
    book.update([("r20.1", 0, 1, 10, 0, 0)])
    assert book.room == 1


def test_one_request_of_many_sequences_does_not_close_a_replica() -> None:
    book = LeaseBook(lookahead=2, slots=8)
    for n in range(3):
        book.open(token(f"r{n}.1"))
    book.update([(f"r{n}.1", 0, 1, 10, 0, 0) for n in range(3)])
    book.update([("r0.1", 1, 3, 10, 0, 0)])  # n = 4: four slots
    assert book.limit == 3 + 3  # as many as run
    book.update([("r0.1", 400, 3, 10, 0, 0)])  # n = 403
    assert book.limit == 3 + 2  # others still get in


def test_a_voided_lease_is_confirmed_counted_and_refused() -> None:
    book = LeaseBook(lookahead=2, slots=0)
    for _ in range(2):  # the queue repeats itself until it has heard us
        book.void(["r1.1"])
    assert (book.arrived, book.limit) == (1, 1 + 2)
    assert book.settlements() == [("r1.1", Usage())]
    with pytest.raises(DuplicateLeaseError):
        book.open(token("r1.1"))


def test_voiding_a_lease_that_arrived_meanwhile_does_not_touch_it() -> None:
    book = LeaseBook(lookahead=2, slots=0)
    lease = book.open(token("r1.1"))
    book.void(["r1.1"])
    assert (book.arrived, book.settlements()) == (1, [])
    book.close(lease)
    assert len(book.settlements()) == 1


def test_charges_are_told_when_they_change_and_again_after_a_failure() -> None:
    book = LeaseBook(lookahead=2, slots=0)
    book.open(token("r1.1"))
    assert book.take_charges() == [("r1.1", Usage())]  # "it has arrived"
    assert book.take_charges() == []
    book.update([("r1.1", 0, 1, 10, 0, 3)])
    assert book.take_charges() == [("r1.1", Usage(10, 0, 3))]
    book.recharge()
    assert book.take_charges() == [("r1.1", Usage(10, 0, 3))]


def test_clients_depart_with_their_last_lease() -> None:
    book = LeaseBook(lookahead=2, slots=0)
    first, second = book.open(token("r1.1")), book.open(token("r2.1"))
    book.close(first)
    assert book.take_departed() == []
    book.close(second)
    assert book.take_departed() == ["alice"]


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from("owasv")), max_size=200))
def test_every_lease_is_settled_once_and_the_window_ends_full(steps: list[tuple[int, str]]) -> None:
    """o open, w in the engine's queue, a admitted, s closed, v voided; then all is closed."""
    book = LeaseBook(lookahead=3, slots=0)
    leases: dict[str, Lease] = {}
    settled: list[str] = []
    for number, step in steps:
        name = f"r{number}.1"
        if step == "o" and name not in leases and name not in settled:
            leases[name] = book.open(token(name))
        elif step in "wa" and name in leases:
            book.update([(name, step == "w", step == "a", 1, 0, 0)])
        elif step == "s" and name in leases:
            book.close(leases.pop(name))
        elif step == "v" and name not in leases and name not in settled:
            book.void([name])
        settlements = book.settlements()
        settled += [lease for lease, _ in settlements]
        book.confirm(settlements)
    for lease in leases.values():
        book.close(lease)
    settled += [lease for lease, _ in book.settlements()]
    assert len(set(settled)) == len(settled) == book.arrived
    assert book.limit == book.arrived + 3
    assert book.open_leases == 0


def test_what_leases_have_spent_is_told_once_to_the_settled_truth() -> None:
    book = LeaseBook(lookahead=2, slots=0)
    assert book.take_spent() == []
    lease, other = book.open(token("r1.1")), book.open(token("r2.1", "bob"))
    book.update([("r1.1", 0, 1, 10, 0, 6)])
    assert book.take_spent() == [(lease.token, Usage(), Usage(10, 0, 6))]
    assert book.take_spent() == []
    answer(lease, told=5)  # a stop string cut what the engine made
    book.close(lease)
    book.confirm(book.settlements())
    book.update([("r2.1", 0, 1, 7, 0, 1)])
    assert book.take_spent() == [
        (lease.token, Usage(10, 0, 6), Usage(10, 0, 5)),
        (other.token, Usage(), Usage(7, 0, 1)),
    ]
    assert book.take_spent() == []


def test_a_book_that_nobody_asks_what_was_spent_keeps_nothing_for_it() -> None:
    book = LeaseBook(lookahead=2, slots=0)
    for n in range(3):
        lease = book.open(token(f"r{n}.1"))
        answer(lease, told=5)
        book.close(lease)
    assert book.take_spent() == []
