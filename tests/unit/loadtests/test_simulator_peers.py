"""Whom other gateways let go next, by the rules in their sources."""

from __future__ import annotations

from collections import deque

from loadtests.simulator.job import Job
from loadtests.simulator.peers import LeastAttainedService, TakeTurns
from loadtests.workloads.workload import Request


def job(client: str, *, at: float = 0.0, prompt: int = 10, made: int = 0) -> Job:
    request = Request(at, client, prompt, 100)
    return Job(f"{client}-{at}", request, 1.0, prompt, lambda _: None, made=made)


def waiting(*jobs: Job) -> dict[str, deque[Job]]:
    lines: dict[str, deque[Job]] = {}
    for each in jobs:
        lines.setdefault(each.client, deque()).append(each)
    return lines


def test_turns_go_by_name_from_the_last_one_on() -> None:
    turns = TakeTurns()
    lines = waiting(job("c"), job("a"), job("b"), job("c"))
    assert [turns.next(lines, 0) for _ in range(4)] == ["a", "b", "c", "a"]
    # Who comes back gets his turn by his name, however long he was away.
    assert turns.next(waiting(job("a"), job("c")), 1) == "c"
    assert turns.next(waiting(job("b")), 2) == "b"  # the last one: the next turn is anybody's first
    assert turns.next(waiting(job("a"), job("c")), 3) == "a"


def test_little_service_goes_before_a_long_wait() -> None:
    policy = LeastAttainedService()
    policy.ended(job("much", made=500), 0)
    policy.ended(job("little", made=490), 0)
    # Not by how much less it is: both count between the least and the most of those that wait.
    assert policy.next(waiting(job("much"), job("little", at=9)), 10) == "little"
    # With equal service the wait decides.
    assert policy.next(waiting(job("new", at=1), job("newer", at=2)), 10) == "new"


def test_service_is_forgotten_by_halves() -> None:
    policy = LeastAttainedService()
    policy.ended(job("long-ago", made=500), 0)
    policy.ended(job("lately", made=200), 120)
    assert policy.next(waiting(job("long-ago", at=120), job("lately", at=120)), 120) == "long-ago"
