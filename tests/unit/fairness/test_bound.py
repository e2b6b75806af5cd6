"""VTC's promise (OSDI 2024, theorem 4.4) in a toy continuous batch.

Two clients that both always have something waiting never differ by more than 2U in service
received, over any interval that starts with both counters equal, with U = max(w_p * longest
input, w_q * tokens that fit in the batch).
"""

import itertools
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from fairness.cost import ServiceCost
from fairness.counters import VirtualTokenCounters
from fairness.fair_queue import FairQueue
from fairness.policy import FCFS, VTC, Policy

MEMORY = 60  # tokens that fit in the batch
STEPS = 300


@dataclass(eq=False)
class Request:
    client: str
    input: int
    output: int
    made: int = 0


SHAPES = st.tuples(st.integers(1, 25), st.integers(1, 25))
MIX = st.lists(SHAPES, min_size=1, max_size=5)


def gaps(order: Policy, mixes: dict[str, list], cost: ServiceCost, weights: dict[str, float]):
    """Overload a batch; yield the difference in service per weight after every step."""
    counters = VirtualTokenCounters()
    queue: FairQueue[Request] = FairQueue(order, counters.counter)
    service = dict.fromkeys(mixes, 0.0)
    endless = {client: itertools.cycle(mix) for client, mix in mixes.items()}

    def send(client: str) -> None:
        counters.join(client, weights[client])
        queue.push(client, Request(client, *next(endless[client])))

    def serve(request: Request, amount: float) -> None:
        counters.charge(request.client, amount)
        service[request.client] += amount / weights[request.client]

    for client in mixes:
        send(client)
        send(client)
    running: list[Request] = []
    for _ in range(STEPS):
        used = sum(r.input + r.output for r in running)
        while used + queue.peek().input + queue.peek().output <= MEMORY:
            request = queue.pop()
            used += request.input + request.output
            serve(request, cost.of(request.input, 0))
            running.append(request)
            send(request.client)
        for request in running:
            request.made += 1
            serve(request, cost.of(0, 1))
        running = [r for r in running if r.made < r.output]
        first, second = service.values()
        yield abs(first - second)


@settings(max_examples=60, deadline=None)
@given(MIX, MIX, st.sampled_from([ServiceCost(), ServiceCost(1, 1), ServiceCost(2, 0.5)]))
def test_two_overloading_clients_never_differ_by_more_than_2u(first, second, cost):
    longest_input = max(shape[0] for shape in first + second)
    u = max(cost.of(longest_input, 0), cost.of(0, MEMORY))
    mixes = {"a": first, "b": second}
    assert max(gaps(VTC(), mixes, cost, {"a": 1.0, "b": 1.0})) <= 2 * u


@settings(max_examples=30, deadline=None)
@given(MIX, MIX)
def test_with_weights_the_bound_holds_for_service_per_weight(first, second):
    cost, weights = ServiceCost(), {"a": 1.0, "b": 4.0}
    longest_input = max(shape[0] for shape in first + second)
    u = max(cost.of(longest_input, 0), cost.of(0, MEMORY))  # of the smaller weight, 1
    assert max(gaps(VTC(), {"a": first, "b": second}, cost, weights)) <= 2 * u


def test_first_come_first_served_breaks_the_bound():
    """The measure tells the policies apart, or the tests above would prove nothing."""
    cost = ServiceCost()
    mixes = {"a": [(25, 25)], "b": [(1, 1)]}
    worst = max(gaps(FCFS(), mixes, cost, {"a": 1.0, "b": 1.0}))
    assert worst > 2 * max(cost.of(25, 0), cost.of(0, MEMORY))
