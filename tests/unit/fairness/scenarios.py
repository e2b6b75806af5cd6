"""Scenarios as data, and what is asked of each: flows of requests into a small cluster.

`play` runs one and returns an `Outcome`: gaps between clients against the stated bound, what each
received against the max-min oracle, how long a free slot waited, and what was left over.
"""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from fairness.bounds import PoolLimits, excess_bound, service_bound
from fairness.cost import ServiceCost
from fairness.groups import Group
from fairness.prediction import Prediction
from fairness.store.contract import QueueSettings
from tests.unit.fairness.cluster import BEAT_S, Cluster, Request, Router, Shape
from tests.unit.fairness.oracle import Arrival, Given, fair_service
from tests.unit.fairness.witness import Witness

SETTLING_S = 60.0  # after the last request: heartbeats, sweeps, grants taken back


@dataclass(frozen=True)
class Flow:
    """One client's requests.

    input, output: tokens, (least, most). held: requests it keeps open; or rate: requests a second,
    whether answered or not. start, stop: seconds. on, off: seconds it sends and is silent, in turn.
    leaves: share of its requests whose client goes away within `patience` seconds.
    routers: those it reaches; none named: all, in turn. bytes_per_token: of its bodies.
    """

    client: str
    input: tuple[int, int] = (20, 60)
    output: tuple[int, int] = (10, 40)
    weight: float = 1.0
    held: int = 0
    rate: float = 0.0
    start: float = 0.0
    stop: float = 1e9
    on: float = 1e9
    off: float = 0.0
    leaves: float = 0.0
    patience: float = 2.0
    routers: tuple[int, ...] = ()
    bytes_per_token: float = 4.0
    groups: tuple[Group, ...] = ()


@dataclass(frozen=True)
class Scenario:
    """faults: (seconds, "router" or "replica", its number). off_fair: how far a client may end from
    its max-min share, as a part of that share."""

    name: str
    flows: tuple[Flow, ...]
    shape: Shape = Shape()  # noqa: RUF009 (a frozen value)
    prediction: Prediction = Prediction()  # noqa: RUF009 (a frozen value)
    cost: ServiceCost = ServiceCost()  # noqa: RUF009 (a frozen value)
    seconds: float = 40.0
    faults: tuple[tuple[float, str, int], ...] = ()
    off_fair: float = 0.05
    seed: int = 1
    burst: float = 0.0


@dataclass
class Outcome:
    scenario: Scenario
    limits: PoolLimits
    witness: Witness
    received: dict[str, float]
    fair: dict[str, float]
    requests: list[Request]
    leftovers: dict[str, int]
    charged: dict[str, float] = field(default_factory=dict)  # by the queue, in the end
    idle_allowed: float = 0.0

    def bound(self, one: str, other: str) -> float:
        weights = self.witness.weights
        deaths = sum(1 for _, what, _ in self.scenario.faults if what == "replica")
        return service_bound(
            self.limits,
            weights[one],
            weights[other],
            lightest=min(weights.values()),
            deaths=deaths,
        )

    def excess_bound(self, waits: str, other: str) -> float:
        weights = self.witness.weights
        least = min(weights.values())
        return excess_bound(self.limits, weights[waits], weights[other], lightest=least)

    @property
    def tightness(self) -> float:
        """The largest gap, as a part of its bound."""
        gaps = self.witness.gaps
        return max((gap / self.bound(*pair) for pair, gap in gaps.items()), default=0.0)

    @property
    def off_fair(self) -> dict[str, float]:
        """How far each client ended from its max-min share, as a part of it."""
        return {c: abs(self.received[c] - fair) / fair for c, fair in self.fair.items() if fair}


def limits_of(scenario: Scenario) -> PoolLimits:
    """What the scenario's pool can be committed to, in the words of the bound."""
    shape, cost = scenario.shape, scenario.cost
    longest_output = max(flow.output[1] for flow in scenario.flows)
    longest_input = max(flow.input[1] for flow in scenario.flows)
    predicts = scenario.prediction.predictor != "none"
    # A token is known to the queue after: the step, the wait for the next report with charges
    # (the one before may still be on its way), and the way.
    lag_s = shape.charge_s + shape.report_s + shape.step_s + 3 * shape.delay_s
    prompts = longest_input + (lag_s / shape.prefill_s if shape.prefill_s else 0.0)
    lag = cost.of(prompts, shape.slots * (1 + lag_s / shape.step_s))
    smallest = min(flow.input[0] + flow.output[0] for flow in scenario.flows)
    ahead = {
        "at once": None,
        "doubling": max(1, shape.lookahead, min(shape.slots, int(shape.memory // smallest))),
        "by lookahead": max(1, shape.lookahead),
    }[shape.fills]
    # Bodies of four bytes a token are what the queue expects of a pool it knows nothing of.
    exact = all(flow.bytes_per_token == 4 for flow in scenario.flows)
    return PoolLimits(
        replicas=shape.replicas,
        longest_input=longest_input,
        longest_output=longest_output,
        window=shape.slots + shape.lookahead,
        ahead=ahead,
        batch_tokens=shape.memory,
        underestimate=0 if exact else None,
        overestimate=0 if exact else None,
        reserved=scenario.prediction.share * longest_output if predicts else 0.0,
        lag_service=lag if shape.prefill_s else None,
        burst=scenario.burst,
        cost=cost,
    )


def play(scenario: Scenario, tamper: Callable[[Cluster], None] = lambda cluster: None) -> Outcome:
    """Run a scenario to its end. tamper: breaks the cluster before it starts (controls)."""
    weights = {flow.client: flow.weight for flow in scenario.flows}
    witness = Witness(weights)
    settings = QueueSettings(
        cost=scenario.cost, prediction=scenario.prediction, burst=scenario.burst
    )
    longest = max(flow.input[1] for flow in scenario.flows)
    cluster = Cluster(replace(scenario.shape, longest=longest), settings, witness)
    tamper(cluster)
    for number, flow in enumerate(scenario.flows):
        Sender(cluster, flow, scenario.seconds, random.Random(f"{scenario.seed} {number}"))
    for time, what, number in scenario.faults:
        cluster.events.after(time, partial(kill, cluster, what, number))
    cluster.run(scenario.seconds)
    received = dict(witness.received)
    given = Given(list(witness.times), list(witness.totals))
    until = scenario.seconds
    while witness.waiting or any(not request.outcome for request in cluster.requests.values()):
        until += SETTLING_S
        cluster.run(until)
        assert until < 100 * scenario.seconds + 1000, "requests that never end"
    cluster.run(until + SETTLING_S)
    witness.finish()
    groups = {flow.client: flow.groups for flow in scenario.flows}
    arrivals = [
        Arrival(r.asked, r.client, scenario.cost.of(r.got.input, r.got.output))
        for r in cluster.requests.values()
    ]
    return Outcome(
        scenario,
        limits_of(scenario),
        witness,
        received,
        fair_service(arrivals, given, scenario.seconds, weights, groups),
        list(cluster.requests.values()),
        cluster.pool.leftovers(),
        {state.client: state.service for state in cluster.pool.clients()},
        idle_allowed(cluster, scenario),
    )


def idle_allowed(cluster: Cluster, scenario: Scenario) -> float:
    """Seconds that a free slot may wait while a request does: a round trip under way and the pause
    after it, then from replica to queue to router to replica; and an engine is asked between two
    steps only. What was granted to a router that died comes back when its grants expire, at the
    next heartbeat."""
    shape, lost = scenario.shape, 0.0
    if any(what == "router" for _, what, _ in scenario.faults):
        lost = cluster.settings.grant_ttl_ms / 1000 + BEAT_S + shape.delay_s
    return 5 * shape.delay_s + shape.report_s + shape.step_s + lost


def kill(cluster: Cluster, what: str, number: int) -> None:
    if what == "router":
        cluster.routers[number].die()
    else:
        cluster.replicas[f"replica{number}"].die()


class Sender:
    """Sends a flow's requests until the scenario's time is over."""

    def __init__(self, cluster: Cluster, flow: Flow, seconds: float, chance: random.Random) -> None:
        self._cluster, self._flow, self._chance = cluster, flow, chance
        self._stop = min(flow.stop, seconds)
        self._numbers = itertools.count()
        self._open = 0
        cluster.events.after(flow.start, self._begin)

    def _begin(self) -> None:
        flow = self._flow
        if flow.rate:
            self._send_on_time()
        else:
            self._fill()
        if flow.off and self._cluster.events.now + flow.on + flow.off < self._stop:
            self._cluster.events.after(flow.on + flow.off, self._begin)

    def _sending(self) -> bool:
        now = self._cluster.events.now
        phase = (now - self._flow.start) % (self._flow.on + self._flow.off)
        return now < self._stop and phase < self._flow.on

    def _send_on_time(self) -> None:
        if self._sending():
            self._send()
            gap = self._chance.expovariate(self._flow.rate)
            self._cluster.events.after(gap, self._send_on_time)

    def _reachable(self) -> list[Router]:
        known = self._flow.routers
        routers = self._cluster.routers
        return [r for n, r in enumerate(routers) if r.alive and (not known or n in known)]

    def _fill(self) -> None:
        while self._open < self._flow.held and self._sending() and self._reachable():
            self._send()

    def _send(self) -> None:
        flow, chance, number = self._flow, self._chance, next(self._numbers)
        routers = self._reachable()
        if not routers:
            return
        tokens_in = chance.randint(*flow.input)
        request = Request(
            f"{flow.client}-{number}",
            flow.client,
            flow.weight,
            tokens_in,
            chance.randint(*flow.output),
            max(1, round(tokens_in * flow.bytes_per_token)),
            self._cluster.events.now,
            routers[number % len(routers)],
            flow.groups,
            self._over,
        )
        self._open += 1
        self._cluster.send(request)
        if chance.random() < flow.leaves:
            patience = chance.uniform(0, flow.patience)
            self._cluster.events.after(patience, lambda: request.router.leave(request))

    def _over(self, request: Request) -> None:
        self._open -= 1
        # At once would be inside a router's or replica's own loop.
        if self._flow.held:
            self._cluster.later(self._fill)
