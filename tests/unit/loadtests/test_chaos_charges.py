"""The store's account held against what clients were told."""

from array import array

import pytest

from loadtests.chaos.charges import EMPTY_EVENTS, SETTLED_S, Tokens, audit
from loadtests.driver import RequestRecord


def answered(client: str = "alice", ended: float = 10.0, output: int = 50) -> RequestRecord:
    made = RequestRecord(client, ended - 5, 128, sent=ended - 5, ended=ended, complete=True)
    made.status, made.input_tokens, made.output_tokens = 200, 100, output
    return made


def broken(client: str = "alice", ended: float = 10.0, **more) -> RequestRecord:
    made = RequestRecord(client, ended - 5, 128, sent=ended - 5, ended=ended, status=200)
    for name, value in more.items():
        setattr(made, name, value)
    return made


NOTHING = {"alice": Tokens(), "bob": Tokens()}


def test_an_account_that_agrees() -> None:
    records = [answered(), answered("bob"), answered("bob")]
    before = {"alice": Tokens(7, 7)}
    after = {"alice": Tokens(107, 57), "bob": Tokens(200, 100), "carol": Tokens()}
    found = audit(records, before, after)
    assert (found.excess, found.missing) == (0, 0)
    assert found.told == 450
    assert found.accounts["bob"].told == found.accounts["bob"].charged == Tokens(200, 100)


@pytest.mark.parametrize(("charged", "excess"), [(Tokens(100, 51), 1), (Tokens(200, 100), 150)])
def test_what_was_charged_twice(charged: Tokens, excess: int) -> None:
    found = audit([answered()], NOTHING, {"alice": charged})
    assert (found.excess, found.missing) == (excess, 0)


def test_what_was_never_charged() -> None:
    found = audit([answered()], NOTHING, {"alice": Tokens(100, 20)})
    assert (found.excess, found.missing) == (0, 30)
    assert audit([answered()], NOTHING, {}).missing == 150


def test_one_clients_loss_does_not_hide_anothers_double_charge() -> None:
    records = [answered("alice"), answered("bob")]
    found = audit(records, NOTHING, {"alice": Tokens(200, 100), "bob": Tokens()})
    assert (found.excess, found.missing) == (150, 150)


def test_what_broke_off_may_have_made_a_whole_answer_or_nothing() -> None:
    records = [answered(), broken(error="cut")]
    for charged in (Tokens(100, 50), Tokens(200, 50), Tokens(200, 100)):
        found = audit(records, NOTHING, {"alice": charged})
        assert (found.excess, found.missing) == (0, 0)
    assert found.accounts["alice"].may == Tokens(100, 50)
    assert audit(records, NOTHING, {"alice": Tokens(200, 101)}).excess == 1
    assert audit(records, NOTHING, {"alice": Tokens(50, 50)}).missing == 50


def test_what_a_broken_off_answer_has_shown_is_charged() -> None:
    records = [answered(), broken(error="cut", chunk_events=array("L", [10, 12]))]
    shown = 10 + 12 - EMPTY_EVENTS
    for charged in (Tokens(200, 50 + shown), Tokens(200, 100)):
        found = audit(records, NOTHING, {"alice": charged})
        assert (found.excess, found.missing) == (0, 0)
    assert audit(records, NOTHING, {"alice": Tokens(200, 49 + shown)}).missing == 1
    assert audit(records, NOTHING, {"alice": Tokens(100, 50 + shown)}).missing == 100
    begun = broken(error="cut", chunk_events=array("L", [1]))  # nothing but its role
    assert audit([answered(), begun], NOTHING, {"alice": Tokens(100, 50)}).missing == 0


def test_a_refusal_costs_nothing() -> None:
    refused = broken(error="503: away", error_type="x")
    refused.status = 503
    never_sent = RequestRecord("alice", 1.0, 128)
    found = audit([answered(), refused, never_sent], NOTHING, {"alice": Tokens(101, 50)})
    assert (found.excess, found.accounts["alice"].may) == (1, Tokens())


def test_another_name_on_the_same_account() -> None:
    records = [answered("carol"), broken("vanishing", aborted=True)]
    found = audit(records, NOTHING, {"carol": Tokens(200, 100)}, accounts={"vanishing": "carol"})
    assert (found.excess, found.missing) == (0, 0)
    assert audit(records, NOTHING, {"carol": Tokens(200, 100)}).excess == 150


def test_an_emptied_store_is_asked_about_what_came_after() -> None:
    before = {"alice": Tokens(9000, 9000)}
    old, settling, open_then, later = (
        answered(ended=20 - SETTLED_S),
        answered(ended=19.5),
        answered(ended=22),
        answered(ended=30),
    )
    records = [old, settling, open_then, later]
    for charged in (Tokens(100, 50), Tokens(300, 150)):
        found = audit(records, before, {"alice": charged}, emptied_at=20.0)
        assert (found.excess, found.missing) == (0, 0)
    assert audit(records, before, {"alice": Tokens(301, 150)}, emptied_at=20.0).excess == 1
    assert audit(records, before, {"alice": Tokens(100, 49)}, emptied_at=20.0).missing == 1


def test_an_emptied_store_of_a_new_application_has_forgotten_the_load_before() -> None:
    records = [answered(ended=k) for k in (5.0, 10.0, 12.0, 30.0, 40.0)]
    found = audit(records, NOTHING, {"alice": Tokens(200, 100)}, emptied_at=20.0)
    assert (found.excess, found.missing) == (0, 0)


def test_an_emptied_store_that_was_told_again_has_no_excuse() -> None:
    before = {"alice": Tokens(9000, 9000)}
    after = {"alice": Tokens(9100, 9050)}
    found = audit([answered(), answered(ended=25)], before, after, emptied_at=20.0)
    assert (found.excess, found.missing) == (0, 150)
