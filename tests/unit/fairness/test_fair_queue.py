"""The fair queue: order, ties, heads of lines, and random histories against a naive model."""

import time
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fairness.counters import VirtualTokenCounters
from fairness.fair_queue import FairQueue
from fairness.policy import FCFS, VTC, policy


def queue_of(counters: dict[str, float], order=None) -> FairQueue[str]:
    return FairQueue(order or VTC(), lambda client: counters.get(client, 0.0))


def drain(queue: FairQueue[str]) -> list[str]:
    return [queue.pop() for _ in range(len(queue))]


def test_the_smallest_counters_oldest_item_goes_first():
    queue = queue_of({"a": 2, "b": 1})
    for client, item in [("a", "a1"), ("b", "b1"), ("a", "a2"), ("b", "b2")]:
        queue.push(client, item)
    assert drain(queue) == ["b1", "b2", "a1", "a2"]


def test_ties_go_by_name_whoever_came_first():
    queue = queue_of({})
    for client in ("c", "a", "b"):
        queue.push(client, f"{client}1")
    assert drain(queue) == ["a1", "b1", "c1"]


def test_charges_between_pops_change_whose_turn_it_is():
    counters = {"a": 0.0, "b": 0.0}
    queue = queue_of(counters)
    for number in (1, 2):
        for client in counters:
            queue.push(client, f"{client}{number}")
    order = []
    while queue:
        item = queue.pop()
        counters[item[0]] += 10
        order.append(item)
    assert order == ["a1", "b1", "a2", "b2"]


def test_a_counter_that_went_down_takes_effect_once_said():
    counters = {"a": 5.0, "b": 9.0}
    queue = queue_of(counters)
    for client in counters:
        queue.push(client, f"{client}1")
    counters["b"] = 1.0
    queue.reorder("b")
    queue.reorder("stranger")
    assert drain(queue) == ["b1", "a1"]


def test_a_prepended_item_keeps_its_place_before_its_line():
    queue = queue_of({})
    queue.push("a", "a1")
    queue.push("a", "a2")
    first = queue.pop()
    queue.push("a", "a3")
    queue.prepend("a", first)
    assert drain(queue) == ["a1", "a2", "a3"]


def test_a_prepend_does_not_put_a_client_before_others():
    queue = queue_of({"a": 5, "b": 1})
    queue.push("b", "b1")
    queue.prepend("a", "a1")
    assert drain(queue) == ["b1", "a1"]


def test_a_priority_orders_its_clients_line_and_nothing_else():
    queue = queue_of({"a": 1})
    for item, priority in (("a1", 0), ("a2", -5), ("a3", 0), ("a4", -5)):
        queue.push("a", item, priority)
    queue.prepend("a", "a5", 0)
    queue.push("b", "b1", 99)
    assert list(queue) == ["b1", "a2", "a4", "a5", "a1", "a3"]
    assert drain(queue) == ["b1", "a2", "a4", "a5", "a1", "a3"]


def test_under_fcfs_a_priority_does_not_pass_other_clients():
    queue = queue_of({}, FCFS())
    for client, item, priority in (("a", "a1", 0), ("b", "b1", 0), ("a", "a2", -1)):
        queue.push(client, item, priority)
    assert drain(queue) == ["b1", "a2", "a1"]


def test_fcfs_is_one_deque_prepends_included():
    queue, plain = queue_of({"a": 99}, FCFS()), deque()
    for number, client in enumerate("abcab"):
        queue.push(client, f"{client}{number}")
        plain.append(f"{client}{number}")
    queue.prepend("c", "c9")
    plain.appendleft("c9")
    queue.prepend("a", "a9")
    plain.appendleft("a9")
    assert list(queue) == list(plain)
    assert drain(queue) == list(plain)


def test_a_switch_of_policy_reorders_what_waits():
    queue = queue_of({"a": 9}, FCFS())
    queue.push("a", "a1")
    queue.push("b", "b1")
    assert queue.peek() == "a1"
    queue.set_policy(VTC())
    assert drain(queue) == ["b1", "a1"]


def test_an_unknown_policy_names_the_choices():
    assert policy("vtc").name == "vtc"
    with pytest.raises(ValueError, match="'lifo'; choose one of: vtc, lcf, fcfs"):
        policy("lifo")


def test_an_empty_queue_says_so():
    queue = queue_of({})
    assert not queue and list(queue) == []
    for call in (queue.pop, queue.peek, queue.first_key):
        with pytest.raises(IndexError, match="empty"):
            call()


def test_an_item_is_queued_once():
    queue = queue_of({})
    queue.push("a", "x")
    for call in (queue.push, queue.prepend):
        with pytest.raises(ValueError, match="already"):
            call("b", "x")
    assert queue.remove("x") and not queue.remove("x")


def test_of_two_queues_the_lower_rank_goes_first_among_equals():
    low, high = (FairQueue[str](FCFS(), lambda _: 0.0, rank=rank) for rank in (0, 1))
    high.push("a", "early")
    high.prepend("a", "earlier")
    low.push("b", "late")
    assert low.first_key() < high.first_key()


def test_memory_is_released_when_lines_empty():
    queue = queue_of({})
    for number in range(1_000):
        queue.push(f"c{number}", str(number))
        queue.prepend(f"c{number}", f"p{number}")
    for number in range(500):
        queue.remove(str(number))
        queue.remove(f"p{number}")
    drain(queue)
    assert not queue._lines and not queue._client_of and not queue._places
    assert len(queue._order._heap) <= 16


def test_removing_does_not_search():
    queue = queue_of({})
    items = [str(number) for number in range(50_000)]
    for item in items:
        queue.push("a", item)
    start = time.perf_counter()
    for item in reversed(items):
        queue.remove(item)
    assert time.perf_counter() - start < 2, "a search per removal would take minutes"


CLIENTS = ["", "a", "b", "c"]
BURST = 7


class AgainstNaiveModel(RuleBasedStateMachine):
    """The queue and the counters together, against lists that are searched and sorted."""

    def __init__(self) -> None:
        super().__init__()
        self.counters = VirtualTokenCounters(burst=BURST)
        self.policy = VTC()
        self.queue: FairQueue[int] = FairQueue(self.policy, self.counters.counter)
        self.line: list[tuple[str, int]] = []  # as in one deque
        self.truth: dict[str, float] = {}
        self.v = self.left_last = 0.0
        self.left_client: str | None = None
        self.next_item = 0

    def backlog(self) -> set[str]:
        return {client for client, _ in self.line}

    def expected(self) -> list[int]:
        if self.policy.name == "fcfs":
            return [item for _, item in self.line]
        ranked = sorted(enumerate(self.line), key=lambda e: (self.truth[e[1][0]], e[1][0], e[0]))
        return [item for _, (_, item) in ranked]

    def leave(self, client: str) -> None:
        if client not in self.backlog():
            self.counters.leave(client)
            self.left_client = client

    @rule(client=st.sampled_from(CLIENTS), counter=st.none() | st.integers(0, 50))
    def arrive(self, client: str, counter: int | None) -> None:
        waiting = self.backlog()
        if counter is not None:
            known = self.truth.get(client)
            self.truth[client] = counter if known is None else max(known, counter)
        elif client not in waiting:
            if waiting:
                level = min(self.truth[c] for c in waiting)
            else:
                level = self.truth.get(self.left_client, self.left_last)
            self.v = max(self.v, level)
            self.truth[client] = max(self.truth.get(client, 0.0), self.v - BURST)
        self.counters.join(client, 1.0, None if counter is None else float(counter))
        self.queue.push(client, self.next_item)
        self.line.append((client, self.next_item))
        self.next_item += 1

    @precondition(lambda self: self.line)
    @rule(service=st.integers(0, 20), returned=st.booleans())
    def serve(self, service: int, returned: bool) -> None:
        item = self.queue.pop()
        assert item == self.expected()[0]
        client = next(c for c, i in self.line if i == item)
        self.line.remove((client, item))
        if returned:
            self.queue.prepend(client, item)
            self.line.insert(0, (client, item))
        else:
            self.leave(client)
            self.counters.charge(client, service)
            self.truth[client] += service

    @precondition(lambda self: self.truth)
    @rule(data=st.data(), service=st.integers(-20, 20))
    def charge(self, data: st.DataObject, service: int) -> None:
        client = data.draw(st.sampled_from(sorted(self.truth)))
        self.counters.charge(client, service)
        self.truth[client] += service
        self.queue.reorder(client)

    @precondition(lambda self: self.truth)
    @rule(data=st.data(), base=st.integers(0, 50))
    def news(self, data: st.DataObject, base: int) -> None:
        client = data.draw(st.sampled_from(sorted(self.truth)))
        self.counters.set_base(client, base)
        self.truth[client] = base + self.counters.charged(client)
        self.queue.reorder(client)

    @precondition(lambda self: self.line)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        client, item = data.draw(st.sampled_from(self.line))
        assert self.queue.remove(item)
        self.line.remove((client, item))
        self.leave(client)

    @rule(name=st.sampled_from(["vtc", "fcfs"]))
    def switch(self, name: str) -> None:
        self.policy = policy(name)
        self.queue.set_policy(self.policy)

    @rule(client=st.sampled_from(CLIENTS))
    def forget(self, client: str) -> None:
        if client in self.truth and client not in self.backlog():
            if client == self.left_client:
                self.left_last, self.left_client = self.truth[client], None
            self.counters.forget(client)
            del self.truth[client]

    @invariant()
    def same_order_and_same_counters(self) -> None:
        assert list(self.queue) == self.expected()
        assert len(self.queue) == len(self.line)
        if self.line:
            assert self.queue.peek() == self.expected()[0]
        assert {c: self.counters.counter(c) for c in self.truth} == self.truth
        assert len(self.counters) == len(self.truth)


AgainstNaiveModel.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)
TestAgainstNaiveModel = AgainstNaiveModel.TestCase
