"""The way to the global queue: every message takes its time, one call of a sender at a time."""

from __future__ import annotations

from collections.abc import Callable

from fairness.store.contract import Call, Grant, QueueSettings, Reply, Sender
from fairness.store.memory_store import MemoryPool
from loadtests.simulator.clock import Clock


class Network:
    """The product's `MemoryPool` and the ways to it, `delay_s` each."""

    def __init__(self, clock: Clock, settings: QueueSettings, delay_s: float) -> None:
        self.clock = clock
        self.delay_s = delay_s
        self.calls = 0
        self.verbs = 0
        self.pool = MemoryPool(settings, lambda: int(clock.now * 1000), self._publish)
        self._routers: dict[str, Callable[[tuple[Grant, ...]], None]] = {}

    def listen(self, router: str, heed: Callable[[tuple[Grant, ...]], None]) -> None:
        """Hear of grants that are made in others' calls."""
        self._routers[router] = heed

    def later(self, act: Callable[[], None]) -> None:
        """Send a message."""
        self.clock.after(self.delay_s, act)

    def call(self, sender: Sender, call: Call, heed: Callable[[Reply], None]) -> None:
        """One round trip to the queue."""
        self.calls += 1
        self.verbs += len(call)

        def apply() -> None:
            reply = self.pool.apply(sender, call)
            self.later(lambda: heed(reply))

        self.later(apply)

    def _publish(self, router: str, grants: tuple[Grant, ...]) -> None:
        self.later(lambda: self._routers[router](grants))


class Caller:
    """Numbers a sender's calls as `fairness.store.session` does. One may be under way at a time."""

    def __init__(self, network: Network, sender: Sender) -> None:
        self.sender = sender
        self._network = network
        self._number = 0
        self._acked = 0
        self.busy = False

    def send(self, call: Call, heed: Callable[[Reply], None]) -> None:
        """Send a call; `heed` gets its reply."""
        self._number += 1
        call.number, call.acked = self._number, self._acked
        self.busy = True

        def hear(reply: Reply) -> None:
            self._acked = call.number
            self.busy = False
            heed(reply)

        self._network.call(self.sender, call, hear)
