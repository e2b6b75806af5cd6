"""Fairlane in simulated time: routers, the global queue, replicas, and the network between."""

from __future__ import annotations

from fairness.store.contract import Call, Grant, QueueSettings, Sender
from loadtests.simulator.job import Job
from loadtests.simulator.network import Network
from loadtests.simulator.replica import Replica
from loadtests.simulator.router import Router
from loadtests.simulator.settings import FairlaneSettings
from loadtests.simulator.systems import Front, Site, System


class Fairlane:
    """The whole system at a site."""

    def __init__(self, site: Site, settings: FairlaneSettings) -> None:
        queue = QueueSettings(
            cost=settings.cost, prediction=settings.prediction, burst=settings.burst
        )
        self._network = network = Network(site.clock, queue, settings.delay_s)
        order = Call()
        order.policy(settings.policy, "the simulation says so")
        network.pool.apply(Sender("router", "router0"), order)
        self._site, self._settings = site, settings
        self._replicas: dict[str, Replica] = {}
        for _ in range(site.replicas):
            self._add_replica()
        self._routers = [
            Router(network, n, settings.bytes_per_token, self._forward)
            for n in range(settings.routers)
        ]
        self._arrived = 0

    def arrive(self, job: Job) -> None:
        """See `systems.Front`."""
        entry = self._arrived if job.request.entry is None else job.request.entry
        self._arrived += 1
        self._routers[entry % len(self._routers)].submit(job)

    def numbers(self) -> dict[str, float]:
        """How much the queue was asked."""
        return {"calls": float(self._network.calls), "verbs": float(self._network.verbs)}

    def leftovers(self) -> dict[str, int]:
        """What the queue still keeps of requests; see `MemoryPool.leftovers`."""
        return self._network.pool.leftovers()

    def _add_replica(self) -> Replica:
        number = len(self._replicas)  # of all that there ever were
        replica = Replica(self._network, self._site.server, self._settings, number)
        self._replicas[replica.name] = replica
        return replica

    def _forward(self, job: Job, grant: Grant) -> None:
        replica = self._replicas[grant.replica]
        self._network.later(lambda: replica.accept(job, grant))


def fairlane(settings: FairlaneSettings) -> System:
    """Fairlane as a system to simulate."""

    def build(site: Site) -> Front:
        return Fairlane(site, settings)

    return build
