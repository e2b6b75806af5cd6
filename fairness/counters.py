"""Virtual token counters: how much weighted service each client has received.

State, per client::

    counter = base + charged
    base      what the rest of the cluster charged it, and its lifts
    charged   the weighted service charged here, since this client was first seen

``charged`` only moves with service given here, so it is what a replica reports. ``base`` is
replaced whenever news comes from the global queue: the counter as read there, minus what
this replica had charged at the moment of that reading. The sum is then the global order plus
the charges that the global queue has not heard of yet, counted once.

Rules
    1. ``charge`` adds ``service / weight``; a refund is a negative charge.
    2. A client that comes with its global counter starts from it (the global queue has lifted
       it already). If it is known here, that counter may be older than some charges made
       here, so ``counter - charged`` is only a lower bound of its base: it can raise the base,
       never lower it. (``set_base`` can: it knows the moment of its reading.)
    3. A client that comes without one is **lifted** when it had nothing waiting: to the
       smallest counter among the backlogged, or, when nobody is backlogged, to the counter
       of the client that left the backlog last. A lift never lowers a counter.
       (VTC, OSDI 2024, algorithm 2, lines 6 to 14.) Unless the policy does not lift (LCF).
    4. With a **burst** it is lifted to that much less than this level: of what it left unused
       while it was idle it may use so much now. The level (V) never falls, so the next that comes
       back is not measured by one that is ahead.

Why the lift: without it, a client that was idle for an hour would own the batch until its
counter had caught up. With it, the counters of backlogged clients stay within one bound U
of each other (the paper's lemma 4.3), and service within 2U.

Whoever charges in small pieces, a token for each running request in every step, may keep them on
a **tab** of its own and hand them over when somebody asks for that client's counter (``due``):
decisions are few, and each of them looks at few counters.

Cost: O(1) for everything but a lift, which is O(log n) amortised in backlogged clients.
Memory: one small record per client until ``forget``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from fairness.lowest_first import LowestFirst


@dataclass(slots=True)
class _Account:
    base: float = 0.0
    charged: float = 0.0
    weight: float = 1.0


class VirtualTokenCounters:
    """The counters of all clients seen here, and who of them is backlogged."""

    def __init__(
        self, due: Callable[[str], float] = lambda client: 0.0, *, burst: float = 0.0
    ) -> None:
        """Begin without clients.

        Args:
            due: hands over the service that a client is still to be charged, once; asked before
                a counter is read. It may rise at any time, but not fall.
            burst: service (by weight) that who comes back is ahead of those who wait.

        Raises:
            ValueError: the burst is not a usable number.
        """
        if not (math.isfinite(burst) and burst >= 0):
            raise ValueError(f"the burst must be 0 or more, not {burst}")
        self._burst = burst
        self._v = 0.0  # the highest level anybody was lifted from
        self.lifts = True  # what the policy in force says
        self._due = due
        self._accounts: dict[str, _Account] = {}
        self._backlog: LowestFirst[str, float] = LowestFirst(self.counter)
        self._left_last: str | None = None
        self._left_last_counter = 0.0  # speaks for it once it is forgotten

    def join(self, client: str, weight: float = 1.0, counter: float | None = None) -> None:
        """Note that a client has sent a request; it is backlogged from now on.

        Args:
            weight: its share, from now on; must be finite and above zero.
            counter: its counter in the global queue, when there is one.

        Raises:
            ValueError: the weight or the counter is not a usable number.
        """
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"the weight of client {client!r} must be above 0, not {weight}")
        if counter is not None and not math.isfinite(counter):
            raise ValueError(f"the counter of client {client!r} must be finite, not {counter}")
        account = self._account(client)  # with what is due, at the weight until now
        known = account is not None
        if account is None:
            account = self._accounts[client] = _Account()
        account.weight = weight
        if counter is not None:
            base = counter - account.charged
            account.base = max(account.base, base) if known else base
        elif self.lifts and client not in self._backlog:
            start = self._lift() - self._burst
            account.base += max(0.0, start - (account.base + account.charged))
        if client not in self._backlog:
            self._backlog.add(client)

    def rejoin(self, client: str) -> None:
        """Note that a client waits again although it never went idle (a preemption): no lift."""
        if client not in self._accounts:
            raise KeyError(f"client {client!r} has never joined")
        if client not in self._backlog:
            self._backlog.add(client)

    def leave(self, client: str) -> None:
        """Note that a client has nothing waiting any more. Its counter stays."""
        if client in self._backlog:
            self._backlog.discard(client)
            self._left_last = client
            self._left_last_counter = self.counter(client)

    def charge(self, client: str, service: float) -> None:
        """Charge service (see ``ServiceCost``), divided by the client's weight.

        A refund is negative. Raises KeyError for a client that has never joined.
        """
        account = self._account(client)
        if account is None:
            raise KeyError(f"client {client!r} has never joined")
        account.charged += service / account.weight
        if service < 0 and client in self._backlog:
            self._backlog.add(client)

    def set_base(self, client: str, base: float) -> None:
        """Take over what the global queue says. A client unknown here is left unknown.

        Raises:
            ValueError: the base is not finite.
        """
        if not math.isfinite(base):
            raise ValueError(f"the base of client {client!r} must be finite, not {base}")
        account = self._accounts.get(client)
        if account is None:
            return
        lower = base < account.base
        account.base = base
        if lower and client in self._backlog:
            self._backlog.add(client)

    def counter(self, client: str) -> float:
        """Return the client's counter; 0 for a client unknown here. (The hot path of decisions.)"""
        account = self._accounts.get(client)
        if account is None:
            return 0.0
        if due := self._due(client):
            account.charged += due / account.weight
        return account.base + account.charged

    def charged(self, client: str) -> float:
        """Return all that was charged to the client here, divided by weight, less refunds."""
        account = self._account(client)
        return 0.0 if account is None else account.charged

    def forget(self, client: str) -> None:
        """Drop a client's record; if it comes back, it comes as a new one.

        Raises:
            ValueError: the client is backlogged.
        """
        if client in self._backlog:
            raise ValueError(f"client {client!r} is backlogged and can't be forgotten")
        if client == self._left_last:
            self._left_last_counter = self.counter(client)
            self._left_last = None
        self._accounts.pop(client, None)

    def __contains__(self, client: object) -> bool:
        return client in self._accounts

    def __len__(self) -> int:
        return len(self._accounts)

    def _account(self, client: str) -> _Account | None:
        """Return a client's account with all that it was charged."""
        account = self._accounts.get(client)
        if account is not None and (due := self._due(client)):
            account.charged += due / account.weight
        return account

    def _lift(self) -> float:
        """V: where those who wait are, or where the last of them went; it never falls."""
        lowest = self._backlog.lowest()
        if lowest is not None:
            level = self.counter(lowest)
        elif self._left_last is not None:
            level = self.counter(self._left_last)
        else:
            level = self._left_last_counter
        self._v = max(self._v, level)
        return self._v
