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

Groups (``fairness.groups``) have counters like clients. What a client is charged, the groups that
it stands in are charged too, each by its own weight; and each is lifted among those it stands with
when the first of its clients comes back.

Where there are priority classes (``fairness.classes``), which are the outermost groups, their turn
does not go by counters: ``order`` and ``next_class`` tell it.

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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from fairness.classes import Classes, ClassTurns, outermost_of
from fairness.groups import ROOT, Group
from fairness.lowest_first import LowestFirst

NO_CLASSES = Classes()


@dataclass(slots=True)
class _Account:
    parent: str
    base: float = 0.0
    charged: float = 0.0
    weight: float = 1.0
    members: int = 0  # of a group: those that stand in it


class _Level:
    """Those that stand together: who of them is backlogged, and what they are lifted to."""

    def __init__(self, counter: Callable[[str], float]) -> None:
        self._counter = counter
        self.backlog: LowestFirst[str, tuple[float]] = LowestFirst(lambda node: (counter(node),))
        self.v = 0.0  # the highest level anybody was lifted from
        self.left_last: str | None = None
        self.left_last_counter = 0.0  # speaks for it once it is forgotten

    def lift(self) -> float:
        """V: where those who wait are, or where the last of them went; it never falls."""
        lowest = self.backlog.lowest()
        if lowest is not None:
            level = self._counter(lowest)
        elif self.left_last is not None:
            level = self._counter(self.left_last)
        else:
            level = self.left_last_counter
        self.v = max(self.v, level)
        return self.v


class VirtualTokenCounters:
    """The counters of all clients and groups seen here, and who of them is backlogged."""

    def __init__(
        self,
        due: Callable[[str], float] = lambda client: 0.0,
        all_due: Callable[[], Iterable[tuple[str, float]]] = tuple,
        *,
        burst: float = 0.0,
        classes: Classes = NO_CLASSES,
    ) -> None:
        """Begin without clients.

        Args:
            due: hands over the service that a client is still to be charged, once; asked before
                its counter is read. It may rise at any time, but not fall.
            all_due: the same for all clients at once, as (client, service); asked before a group's
                counter is read.
            burst: service (by weight) that who comes back is ahead of those who wait.
            classes: those that there are; who comes without one is in the first.

        Raises:
            ValueError: the burst is not a usable number.
        """
        if not (math.isfinite(burst) and burst >= 0):
            raise ValueError(f"the burst must be 0 or more, not {burst}")
        self.lifts = True  # what the policy in force says
        self._burst = burst
        self._due = due
        self._all_due = all_due
        self._accounts: dict[str, _Account] = {}
        self._levels = {ROOT: _Level(self.counter)}  # by group
        self._classes = classes
        self._turns = ClassTurns(classes, lambda group: group in self._levels[ROOT].backlog)
        self.order = self._order if classes else self.counter  # what is to be ordered by

    def join(
        self,
        client: str,
        weight: float = 1.0,
        counter: float | None = None,
        groups: Iterable[Group] = (),
    ) -> None:
        """Note that a client has sent a request; it is backlogged from now on.

        Args:
            weight: its share, from now on; must be finite and above zero.
            counter: its counter in the global queue, when there is one.
            groups: those it stands in from now on, the outermost first.

        Raises:
            ValueError: a weight or a counter is not a usable number.
        """
        path = [*self._classes.place(groups), Group(client, weight, counter)]
        for node in path:
            _check(node)
        parent = ROOT
        for node in path:
            self._enter(node, parent)
            parent = node.name
        self._begin_waiting(client)

    def rejoin(self, client: str) -> None:
        """Note that a client waits again although it never went idle (a preemption): no lift."""
        if client not in self._accounts:
            raise KeyError(f"client {client!r} has never joined")
        self._begin_waiting(client)

    def leave(self, client: str) -> None:
        """Note that a client has nothing waiting any more. Its counter stays."""
        node = client
        while node != ROOT and (account := self._accounts.get(node)) is not None:
            level = self._levels[account.parent]
            if node not in level.backlog:
                return
            level.backlog.discard(node)
            level.left_last = node
            level.left_last_counter = self.counter(node)
            if len(level.backlog):
                return
            node = account.parent

    def charge(self, client: str, service: float) -> None:
        """Charge service (see ``ServiceCost``), divided by the client's weight.

        A refund is negative. Raises KeyError for a client that has never joined.
        """
        account = self._accounts.get(client)
        if account is None:
            raise KeyError(f"client {client!r} has never joined")
        self._charge(account, self._due(client) + service)
        if service < 0:
            for node in (client, *self.groups_of(client)):
                self._fell(node)

    def serve(self, client: str) -> None:
        """Note that a request of a client is served, before its charge (``fairness.classes``)."""
        if self._turns.owed:
            self._turns.serve(outermost_of(self.group_of(client)))

    def next_class(self, waits: Callable[[str], bool]) -> str | None:
        """Return the class that goes next, by its group, of those of which something waits."""
        if not self._classes:
            return None
        self._charge_all_due()
        return self._turns.first(waits)

    def set_base(self, node: str, base: float) -> None:
        """Take over what the global queue says of a client or a group. One unknown here is left
        unknown.

        Raises:
            ValueError: the base is not finite.
        """
        if not math.isfinite(base):
            raise ValueError(f"the base of {node!r} must be finite, not {base}")
        account = self._accounts.get(node)
        if account is None:
            return
        lower = base < account.base
        account.base = base
        if lower:
            self._fell(node)

    def counter(self, node: str) -> float:
        """Return the counter of a client or a group; 0 for one unknown here. (The hot path of
        decisions.)"""
        account = self._accounts.get(node)
        if account is None:
            return 0.0
        if account.members:
            self._charge_all_due()
        elif due := self._due(node):
            self._charge(account, due)
        return account.base + account.charged

    def charged(self, node: str) -> float:
        """Return all that was charged here to a client or a group, divided by weight, less
        refunds."""
        account = self._accounts.get(node)
        if account is None:
            return 0.0
        self.counter(node)  # with what is due
        return account.charged

    def group_of(self, client: str) -> str:
        """Return the innermost group that a client stands in, ``ROOT`` for none."""
        account = self._accounts.get(client)
        return ROOT if account is None else account.parent

    def groups_of(self, client: str) -> Iterator[str]:
        """Yield the groups that a client stands in, the innermost first."""
        group = self.group_of(client)
        while group != ROOT:
            yield group
            group = self._accounts[group].parent

    def forget(self, client: str) -> None:
        """Drop a client's record; if it comes back, it comes as a new one. A group goes with the
        last of its clients.

        Raises:
            ValueError: the client is backlogged.
        """
        account = self._accounts.get(client)
        if account is None:
            return
        if client in self._levels[account.parent].backlog:
            raise ValueError(f"client {client!r} is backlogged and can't be forgotten")
        self._drop(client, account)

    def __contains__(self, node: object) -> bool:
        return node in self._accounts

    def __len__(self) -> int:
        return len(self._accounts)

    def _enter(self, node: Group, parent: str) -> None:
        """Make a node stand in `parent`, with its weight, and lift it if it comes from idleness."""
        account = self._accounts.get(node.name)
        known = account is not None and account.parent == parent
        if account is None:
            account = self._accounts[node.name] = _Account(parent)
            self._count_member(parent, 1)
        else:
            self.counter(node.name)  # charge what is due, at the weight until now
            if not known:
                self._move(node.name, account, parent)
        account.weight = node.weight
        level = self._levels[parent]
        if node.counter is not None:
            base = node.counter - account.charged
            account.base = max(account.base, base) if known else base
        elif self.lifts and node.name not in level.backlog:
            start = level.lift() - self._burst
            account.base += max(0.0, start - (account.base + account.charged))

    def _move(self, node: str, account: _Account, parent: str) -> None:
        self.leave(node)
        self._count_member(parent, 1)
        self._count_member(account.parent, -1)
        account.parent = parent

    def _count_member(self, group: str, count: int) -> None:
        if group == ROOT:
            return
        self._levels.setdefault(group, _Level(self.counter))
        account = self._accounts[group]
        account.members += count
        if not account.members:
            del self._levels[group]
            self._drop(group, account)

    def _drop(self, node: str, account: _Account) -> None:
        level = self._levels[account.parent]
        if node == level.left_last:
            level.left_last_counter = self.counter(node)
            level.left_last = None
        self._accounts.pop(node)
        self._count_member(account.parent, -1)

    def _begin_waiting(self, client: str) -> None:
        node = client
        while node != ROOT:
            parent = self._accounts[node].parent
            level = self._levels[parent]
            if node in level.backlog:
                return
            level.backlog.add(node)
            node = parent

    def _order(self, node: str) -> float:
        """The counter; of a class, its turn."""
        if node not in self._turns:
            return self.counter(node)
        self._charge_all_due()
        return self._turns.key(node)

    def _charge_all_due(self) -> None:
        for client, service in self._all_due():
            self._charge(self._accounts[client], service)

    def _charge(self, account: _Account, service: float) -> None:
        account.charged += service / account.weight
        if account.parent == ROOT:
            return  # in no group, so in no class
        outermost = ROOT
        while account.parent != ROOT:
            outermost = account.parent
            account = self._accounts[outermost]
            account.charged += service / account.weight
        if self._turns.owed:
            self._turns.charge(outermost, service)

    def _fell(self, node: str) -> None:
        backlog = self._levels[self._accounts[node].parent].backlog
        if node in backlog:
            backlog.add(node)


def _check(node: Group) -> None:
    name, weight, counter = node
    if not (math.isfinite(weight) and weight > 0):
        raise ValueError(f"the weight of {name!r} must be above 0, not {weight}")
    if counter is not None and not math.isfinite(counter):
        raise ValueError(f"the counter of {name!r} must be finite, not {counter}")
