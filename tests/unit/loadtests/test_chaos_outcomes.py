"""Every request must end: which endings count as what."""

import pytest

from loadtests.chaos.outcomes import CutsAllowed, Outcome, Refusals, outcome, refusals_in, tally
from loadtests.driver import RequestRecord

CUTS = CutsAllowed(start=10.0, end=15.0)


def record(client: str = "alice", *, sent: float = 9.0, ended: float | None = 11.0, **more):
    made = RequestRecord(client, sent, 128, sent=sent, ended=ended)
    for name, value in more.items():
        setattr(made, name, value)
    return made


WHOLE = {"status": 200, "complete": True}
REFUSAL = {"status": 503, "error": "503: away", "error_type": "service_unavailable_error"}
BROKEN = {"status": 200, "error": "the stream ended without [DONE]"}


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (record(**WHOLE), Outcome.ANSWERED),
        (record(**REFUSAL), Outcome.REFUSED),
        # An error event in a stream that then ended in order.
        (record(**WHOLE, error="failed", error_type="service_unavailable_error"), Outcome.REFUSED),
        (record(status=502, error="502: <html>Bad Gateway"), Outcome.LOST),
        (record(**WHOLE, error="failed"), Outcome.LOST),  # an event of no known shape
        (record(**BROKEN), Outcome.LOST),
        (record(error="Server disconnected"), Outcome.LOST),
        (record(aborted=True, status=200), Outcome.LOST),  # its patience was over
        (record(ended=None), Outcome.LOST),
    ],
)
def test_how_a_request_ended(made: RequestRecord, expected: Outcome) -> None:
    assert outcome(made) is expected


def test_only_clients_who_mean_to_leave_may() -> None:
    assert outcome(record("dave", aborted=True), leavers={"dave"}) is Outcome.LEFT
    assert outcome(record("alice", aborted=True), leavers={"dave"}) is Outcome.LOST
    assert outcome(record("dave", **WHOLE), leavers={"dave"}) is Outcome.ANSWERED


@pytest.mark.parametrize(
    ("sent", "ended", "expected"),
    [
        (9.0, 11.0, Outcome.CUT),
        (11.0, 11.2, Outcome.CUT),  # sent to a router that is dead, though nobody knows it yet
        (8.0, 9.5, Outcome.LOST),  # before the fault
        (9.0, 60.0, Outcome.LOST),  # long after it: the client had to find out by itself
        (16.0, 17.0, Outcome.LOST),
    ],
)
def test_a_broken_connection_is_excused_by_the_fault_only(sent, ended, expected) -> None:
    assert outcome(record(sent=sent, ended=ended, **BROKEN), cuts=CUTS) is expected


def test_hanging_is_never_excused() -> None:
    assert outcome(record(aborted=True), cuts=CUTS) is Outcome.LOST


def test_the_tally_counts_each_once_and_keeps_complaints() -> None:
    records = [record(**WHOLE), record(**REFUSAL), record(**REFUSAL), record(ended=None)]
    found = tally(records)
    assert found.requests == 4
    assert [found.of(kind) for kind in Outcome] == [1, 2, 0, 1, 0]
    assert found.complaints == {
        "refused: 503: away": 2,
        "lost: no end before the deadline": 1,
    }


def test_without_a_store_a_quick_503_with_retry_after_is_right() -> None:
    right = record(sent=12.0, ended=12.1, retry_after=1.0, **REFUSAL)
    slow = record(sent=12.0, ended=17.0, retry_after=1.0, **REFUSAL)
    silent = record(sent=12.0, ended=12.1, **REFUSAL)
    served = record(sent=12.0, ended=12.1, **WHOLE)
    hung = record(sent=12.0, ended=None)
    earlier = record(sent=9.0, ended=12.1, **WHOLE)
    asked = [right, slow, silent, served, hung, earlier]
    assert refusals_in(asked, 10.0, 20.0, quick_s=3.0) == Refusals(refused=1, wrong=4)
