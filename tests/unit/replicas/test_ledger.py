"""The ledger by itself: what no scheduler is needed to show."""

import pytest

from fairness.cost import ServiceCost
from replicas.ledger import Identity, Ledger


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(ServiceCost())


def test_identity_is_read_as_the_replica_writes_it():
    fields = {"client": "a", "lease": "l1", "weight": 2, "counter": 7}
    assert Identity.read(fields) == Identity("a", "l1", 2.0, 7.0)
    assert Identity.read({"client": "a"}) == Identity("a", None, 1.0, None)


@pytest.mark.parametrize(
    "fields",
    [
        None,
        {},
        "a",
        {"client": "a", "weight": 0},
        {"client": "a", "weight": "much"},
        {"client": "a", "weight": float("nan")},
        {"client": "a", "counter": float("inf")},
        {"client": "a", "counter": [1]},
        {"client": "a", "price": 0},
        {"client": "a", "price": float("inf")},
    ],
)
def test_identity_that_makes_no_sense_is_nobodys(fields):
    assert Identity.read(fields) == Identity("", None, 1.0, None)


def test_a_session_pays_for_its_new_input_only(ledger):
    answer: list[int] = []
    ledger.opened("r", Identity("a", "l"), 10, answer)
    ledger.admitted("r", 10, cached=4)
    answer += [7, 8, 9]
    ledger.stepped()
    ledger.continued("r", Identity("a", "l"), 5)
    answer.clear()
    ledger.admitted("r", 10 + 2 + 5, cached=0)  # two of its tokens are part of the prompt now
    assert ledger.report()[0] == [["l", 0, 1, 15, 4, 3]]
    assert ledger.counters.charged("a") == (15 - 4) + 2 * 3


def test_an_unknown_request_that_ends_is_nothing(ledger):
    assert ledger.ended("stranger", 0) is None
    assert ledger.report() == ([], {})


def test_forget_waits_until_all_is_reported(ledger):
    ledger.opened("r", Identity("a", "l"), 10, [])
    ledger.admitted("r", 10, cached=0)
    ledger.forget(["a"])
    ledger.ended("r", 10)
    ledger.forget(["a"])
    assert ledger.report() == ([["l", 0, 0, 10, 0, 0]], {"a": 10.0})
    ledger.forget(["a", "stranger"])
    assert len(ledger.counters) == 0
    assert ledger.report() == ([], {})


def test_a_lease_that_opens_again_after_its_end_was_reported_starts_from_zero(ledger):
    for expected in (10, 10):
        ledger.opened("r", Identity("a", "l"), 10, [])
        ledger.admitted("r", 10, cached=0)
        ledger.ended("r", 10)
        assert ledger.report()[0] == [["l", 0, 0, expected, 0, 0]]


def test_a_preempted_client_is_among_those_a_newcomer_is_lifted_to(ledger):
    ledger.opened("r", Identity("a"), 10, [])
    ledger.admitted("r", 10, cached=0)
    ledger.opened("s", Identity("b", counter=500.0), 10, [])
    ledger.preempted("r", computed=10)
    ledger.opened("t", Identity("c"), 10, [])
    assert ledger.counters.counter("c") == 10


def test_a_refund_is_never_more_than_was_charged(ledger):
    ledger.opened("r", Identity("a", "l"), 10, [])
    ledger.admitted("r", 10, cached=6)
    ledger.ended("r", computed=0)
    assert ledger.counters.charged("a") == 0
    assert ledger.report()[0] == [["l", 0, 0, 6, 6, 0]]


def test_each_request_is_charged_at_its_price(ledger):
    dear: list[int] = []
    cheap: list[int] = []
    ledger.opened("dear", Identity("a", "l1", price=3.0), 10, dear)
    ledger.opened("cheap", Identity("a", "l2"), 10, cheap)
    ledger.admitted("dear", 10, cached=4)
    ledger.admitted("cheap", 10, cached=0)
    assert ledger.counters.charged("a") == 3 * 6 + 10
    dear += [1, 2]
    cheap += [1]
    ledger.stepped()
    assert ledger.counters.charged("a") == 3 * (6 + 2 * 2) + (10 + 2)
    ledger.ended("dear", 12)
    cheap += [2, 3]
    ledger.stepped()
    leases, charged = ledger.report()
    assert sorted(leases) == [["l1", 0, 0, 10, 4, 2], ["l2", 0, 1, 10, 0, 3]]
    assert charged == {"a": 3 * 10 + 16}


def test_a_prompt_that_was_not_computed_is_refunded_at_its_price(ledger):
    ledger.opened("r", Identity("a", "l", price=3.0), 10, [])
    ledger.admitted("r", 10, cached=0)
    ledger.ended("r", 4)
    assert ledger.report() == ([["l", 0, 0, 4, 0, 0]], {"a": 12.0})
