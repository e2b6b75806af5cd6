"""Which stories a router keeps, and what is told of them."""

from __future__ import annotations

import time
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fairness.cost import ServiceCost
from fairness.store.contract import Call, Grant, Reply
from fairness.store.explain import Choice, End, Place, Standing
from router.clients import Client, Group
from router.explain.account import account
from router.explain.following import CLOSE_S, Following
from router.explain.stories import Stories
from router.explain.story import Story

COST = ServiceCost(1.0, 2.0, 0.0)


def story(client: str = "bob", request: str = "r-1", finished: Any = None) -> Story:
    who = Client(client, 2.0, (Group("acme"),))
    finished = finished or (lambda story: None)
    return Story(
        "router-1", "tiny", who, "/v1/chat/completions", 90, 0, request, 100.0, 5e8, finished
    )


@given(st.lists(st.sampled_from(["a", "b", "c", "flood"]), max_size=60), st.integers(1, 9))
def test_the_fullest_clients_oldest_is_forgotten(clients: list[str], keep: int) -> None:
    stories = Stories(keep, 1000, time.monotonic)
    kept: dict[str, list[str]] = {}
    for number, client in enumerate(clients):
        stories.add(story(client, f"r-{number}"))
        kept.setdefault(client, []).append(f"r-{number}")
        if sum(map(len, kept.values())) > keep:
            fullest = min(kept, key=lambda name: (-len(kept[name]), name))
            kept[fullest].pop(0)
    assert len(stories) == sum(map(len, kept.values())) <= keep
    assert {each.request for each in stories} == {name for of in kept.values() for name in of}


def test_only_so_many_a_second_and_of_one_client_a_quarter() -> None:
    now = 7.2
    stories = Stories(1000, 8, lambda: now)
    assert sum(stories.takes("flood") for _ in range(100)) == 2
    assert sum(stories.takes(f"client-{n}") for n in range(100)) == 6
    assert not stories.takes("late")
    now = 8.0
    assert stories.takes("late")
    assert stories.takes("flood")


def test_only_those_that_the_store_has_are_taken_back_there() -> None:
    stories = Stories(1, 1000, time.monotonic)
    written = story(request="written")
    written.written = 3
    for each in (story(request="never written"), written, story(request="last")):
        stories.add(each)
    assert stories.forgotten == ["written"]


def grant(number: int = 1, choice: Choice | None = None) -> Grant:
    return Grant("r-1", f"r-1.{number}", f"replica-{number}", "u", 10.0, (), choice)


def settled(lease: str = "r-1.1") -> Reply:
    return Reply(ends=(End("settled", 30, 10, 5, 50.0, 30.0, lease),))


def test_it_is_finished_when_its_cost_is_known() -> None:
    finished: list[Story] = []
    following = Following()
    one = story(finished=finished.append)
    following.begin(one, "r-1", degraded=False)
    one.grant(grant())
    one.end("done", status=200)
    following.over(one)
    assert following.tend()
    assert not finished
    following.heed(settled("r-2.1"))  # of another
    following.heed(settled())
    assert finished == [one]
    assert not following.tend()


def test_the_cost_may_be_known_before_the_client_is_served() -> None:
    finished: list[Story] = []
    following = Following()
    one = story(finished=finished.append)
    following.begin(one, "r-1", degraded=False)
    one.grant(grant())
    following.heed(settled())
    assert not finished
    one.end("done", status=200)
    following.over(one)
    assert finished == [one]


def test_nobody_waits_for_ever_for_a_cost() -> None:
    finished: list[Story] = []
    following = Following()
    one = story(finished=finished.append)
    following.begin(one, "r-1", degraded=False)
    one.grant(grant())
    one.end("failed")
    following.over(one)
    one.ended = time.monotonic() - CLOSE_S - 1
    assert not following.tend()
    assert finished == [one]


def test_a_router_s_own_queue_is_not_asked_who_is_before() -> None:
    one = story()
    one.kept = True
    asked = {}
    for degraded in (False, True):
        call = Call()
        Following.ask(one, call, degraded=degraded)
        asked[degraded] = call.verbs
    assert asked == {False: [("explain", "r-1", 1)], True: [("explain", "r-1", 0)]}


def told(one: Story) -> str:
    return "\n".join(account(one.facts(COST)))


def test_the_whole_account() -> None:
    one = story()
    one.submitted = 100.0
    one.stand(
        Standing("vtc", 2, (Place("acme/", 9.0, 0, ()), Place("bob", 8.0, 7, (("al", 3.0),))))
    )
    one.grant(grant(1, Choice(50.0, 10.0, 1, 0, "")))
    one.fail("it is gone")
    one.grant(grant(2, Choice(50.0, 10.0, 3, 2, "replica-3")))
    one.tries[-1].heard = 104.0
    one.answer()
    one.answered = 104.5
    one.settle(End("settled", 40, 0, 20, 50.0, 80.0, "r-1.2"))
    one.end("done", status=200)
    one.ended = 109.0
    assert told(one).splitlines() == [
        "bob of acme asked tiny at 1985-11-05T00:53:20.000+00:00 (/v1/chat/completions, 90 bytes, "
        "weight 2, priority 0) through router router-1.",
        "It waited 4.0 s in the queue.",
        "When it came, nobody who waited had received less than the group acme (counter 9): it was "
        "its turn next.",
        "When it came, 7 were before bob (counter 8), having received less service by weight: al "
        "by 5 and 6 more.",
        "2 requests of bob itself went before it.",
        told(one).splitlines()[5],
        "Charged 50 in advance: about 30 prompt tokens and 10 predicted output tokens.",
        "That replica gave no answer (it is gone): back to its place, refunded.",
        "Granted again after 4.0 s to replica replica-2, which had most room: 3 credits, then "
        "replica-3 with 2.",
        "Charged 50 in advance: about 30 prompt tokens and 10 predicted output tokens.",
        "The answer began after 4.5 s.",
        "Answered with 200 after 9.0 s.",
        "The replica settled it: 40 prompt tokens, 20 output tokens, service 80; the charge was "
        "corrected by +30.",
    ]


def test_first_come_first_served_a_refusal_and_one_that_waits() -> None:
    one = story()
    one.submitted = time.monotonic()
    one.stand(Standing("fcfs", 3, ()))
    assert "First come, first served: 3 requests had come before it." in told(one)
    assert told(one).endswith("It is waiting now.")
    one = story()
    one.end("refused", "too much", 429)
    one.ended = 100.25
    assert told(one).endswith(
        "It did not come into the queue.\nRefused with 429 after 250 ms: too much."
    )
