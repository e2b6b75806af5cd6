"""A simulated router: submits what arrives, and sends on what is granted."""

from __future__ import annotations

from collections.abc import Callable

from fairness.store.coalescer import MAX_VERBS
from fairness.store.contract import Call, Grant, Reply, Sender
from loadtests.simulator.job import Job
from loadtests.simulator.network import Caller, Network

BEAT_S = 1.0

Forward = Callable[[Job, Grant], None]


class Router:
    """One ingress process. Verbs gather while a call is under way, as in the coalescer."""

    def __init__(
        self, network: Network, number: int, bytes_per_token: int, forward: Forward
    ) -> None:
        self._network = network
        self._caller = Caller(network, Sender("router", f"router{number}"))
        self._bytes_per_token = bytes_per_token
        self._forward = forward
        self._waiting: dict[str, Job] = {}
        self._pending = Call()
        network.listen(self._caller.sender.name, self._grant)
        self._beat()

    def submit(self, job: Job) -> None:
        """A request arrives."""
        self._waiting[job.id] = job
        size = job.prompt * self._bytes_per_token
        self._pending.submit(job.id, job.client, job.weight, size)
        self._flush()

    def _flush(self) -> None:
        if self._pending and not self._caller.busy:
            verbs = self._pending.verbs
            self._pending = Call(verbs[MAX_VERBS:])
            self._caller.send(Call(verbs[:MAX_VERBS]), self._heed)

    def _heed(self, reply: Reply) -> None:
        self._grant(reply.grants)
        self._flush()

    def _grant(self, grants: tuple[Grant, ...]) -> None:
        for grant in grants:
            self._forward(self._waiting.pop(grant.request), grant)

    def _beat(self) -> None:
        self._pending.heartbeat()
        self._flush()
        self._network.clock.after(BEAT_S, self._beat)
