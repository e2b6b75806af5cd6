"""Pools side by side on one clock, each a `Cluster`, that tell each other what clients receive.

What is told, and how it is summed up, is `replicas.neighbours.Dues`; the way takes `delay_s`.
Everybody waits in its pools all the time, so what each should receive is known.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fairness.bounds import service_bound
from fairness.grant_token import GrantToken
from fairness.store.contract import QueueSettings, Sender
from replicas.neighbours import Dues
from tests.unit.fairness.cluster import Cluster, Events, Shape
from tests.unit.fairness.oracle import pools_max_min
from tests.unit.fairness.scenarios import Flow, Scenario, limits_of
from tests.unit.fairness.scenarios import Sender as FlowSender
from tests.unit.fairness.witness import Witness

NO_LIMIT = 1e12


@dataclass(frozen=True)
class Stall:
    """A pool of the market, and those who use it."""

    shape: Shape
    price: float
    flows: tuple[Flow, ...]


class Teller(Witness):
    """Notes what is due to the other pools."""

    def __init__(self, weights: dict[str, float]) -> None:
        super().__init__(weights)
        self.dues: dict[str, Dues] = {}
        self.granted: set[str] = set()  # clients, since somebody looked

    def delivered(self, client: str, service: float, time: float) -> None:
        super().delivered(client, service, time)
        token = GrantToken("", client, "", 0, weight=self.weights[client])
        for dues in self.dues.values():
            dues.add(token, service)

    def waits_no_more(self, request: str) -> None:
        if request in self._waiting:
            self.granted.add(self._waiting[request])
        super().waits_no_more(request)


class Market:
    """across: whether the pools tell each other."""

    def __init__(
        self, stalls: Mapping[str, Stall], *, across: bool = True, debt: float = NO_LIMIT
    ) -> None:
        self.stalls = stalls
        self.events = Events()
        self.watches: list[Watch] = []
        self.tellers: dict[str, Teller] = {}
        self.clusters: dict[str, Cluster] = {}
        self.weights = {
            flow.client: flow.weight for stall in stalls.values() for flow in stall.flows
        }
        for name, stall in stalls.items():
            teller = self.tellers[name] = Teller({flow.client: flow.weight for flow in stall.flows})
            self.clusters[name] = Cluster(stall.shape, QueueSettings(), teller, self.events)
        if across:
            for name, teller in self.tellers.items():
                for other, pool in stalls.items():
                    if other != name:
                        rate = stalls[name].price / pool.price
                        teller.dues[other] = Dues(rate, debt)
                        self._tell(name, other, 1)

    def run(self, seconds: float, seed: int = 1) -> None:
        for name, stall in self.stalls.items():
            for flow in stall.flows:
                chance = random.Random(f"{seed} {name} {flow.client}")
                FlowSender(self.clusters[name], flow, seconds, chance)
        self.events.run(seconds, self._look)

    def money(self) -> dict[str, float]:
        """What each client has received in all pools."""
        received: Counter[str] = Counter()
        for name, teller in self.tellers.items():
            for client, service in teller.received.items():
                received[client] += service * self.stalls[name].price
        return dict(received)

    def fair_money(self) -> dict[str, float]:
        """What each should have received of what the pools gave."""
        users = {
            client: frozenset(
                name
                for name, stall in self.stalls.items()
                if client in {flow.client for flow in stall.flows}
            )
            for client in self.weights
        }
        given = {
            name: sum(teller.received.values()) * self.stalls[name].price
            for name, teller in self.tellers.items()
        }
        return pools_max_min(given, users, self.weights)

    def _tell(self, name: str, other: str, number: int) -> None:
        call = self.tellers[name].dues[other].take()
        if call:
            call.number, call.acked = number, number - 1
            pool = self.clusters[other].pool
            sender = Sender("neighbour", name)
            self.clusters[name].later(lambda: pool.apply(sender, call) and None)
        again_s = self.stalls[name].shape.charge_s
        self.events.after(again_s, lambda: self._tell(name, other, number + bool(call)))

    def _look(self) -> None:
        for cluster in self.clusters.values():
            cluster.look()
        for watch in self.watches:
            watch.look()


class Watch:
    """Looks after every event whether the bound across pools holds in one pool.

    For clients i and j that wait there, with D what i has received in all pools more than j, by
    weight, and F what one has received elsewhere since its last grant here::

        D(t2) - D(t1)  <=  bound + F_i(t2) + F_j(t1)        for all t1 < t2
    """

    def __init__(self, market: Market, pool: str) -> None:
        self._market, self._pool = market, pool
        self._clients = sorted(market.tellers[pool].weights)
        self._elsewhere = dict.fromkeys(self._clients, 0.0)  # at the last grant here
        self._least = {
            (i, j): 0.0 for i in self._clients for j in self._clients if i != j
        }  # of D + F_j
        self.worst = 0.0  # of what is bounded, as a part of the bound
        self._bounds = {pair: self._bound(*pair) for pair in self._least}

    def look(self) -> None:
        market, here = self._market, self._market.tellers[self._pool]
        money = market.money()
        price = market.stalls[self._pool].price
        elsewhere = {c: money[c] - price * here.received[c] for c in self._clients}
        for client in here.granted:
            self._elsewhere[client] = elsewhere[client]
        here.granted.clear()
        weights = market.weights
        since = {c: (elsewhere[c] - self._elsewhere[c]) / weights[c] for c in self._clients}
        for (i, j), least in self._least.items():
            ahead = money[i] / weights[i] - money[j] / weights[j]
            self.worst = max(self.worst, (ahead - since[i] - least) / self._bounds[i, j])
            self._least[i, j] = min(least, ahead + since[j])

    def _bound(self, i: str, j: str) -> float:
        """In money: the pool's own, and what the others have given but not told."""
        market = self._market
        weights, total = market.weights, 0.0
        for name, stall in market.stalls.items():
            limits = limits_of(Scenario(name, stall.flows, stall.shape))
            if name == self._pool:
                least = min(market.tellers[name].weights.values())
                own = service_bound(limits, weights[i], weights[j], lightest=least)
                total += stall.price * own
            else:
                assert limits.lag_service is not None
                lag = stall.price * stall.shape.replicas * limits.lag_service
                total += lag * (1 / weights[i] + 1 / weights[j])
        return total


def stall(clients: Sequence[tuple[str, float]], price: float, shape: Shape) -> Stall:
    """A pool whose clients, with their weights, always wait."""
    flows = tuple(Flow(client, held=40, weight=weight) for client, weight in clients)
    longest = max(flow.input[1] for flow in flows)
    return Stall(replace(shape, longest=longest), price, flows)
