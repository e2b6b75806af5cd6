"""Who has been served how much, and whose turn it is: the tree of clients and groups, in memory.

The half of `memory_store` that is VTC; lua/moves.lua does the same. `fairness.groups` says what the
tree is. A node that neither waits nor runs and is not above the start of newcomers is unknown: what
it is owed is what anybody would get.

Cost: O(log nodes) amortised, for each level of groups.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fairness.classes import Classes, ClassTurns, outermost_of
from fairness.groups import ROOT, Group, is_group, parent_of_group
from fairness.lowest_first import LowestFirst
from fairness.store.contract import Argument
from fairness.store.usage import Used


@dataclass(slots=True)
class Client:
    """A client: its counter, what waits and runs, what it used in all, and on its last day."""

    name: str
    parent: str = ROOT
    counter: float = 0.0
    waiting: int = 0
    running: int = 0
    input: int = 0
    cached: int = 0
    output: int = 0
    service: float = 0.0
    outputs: list[int] = field(default_factory=list)
    day: int = 0
    used: Used | None = None


@dataclass(slots=True)
class GroupNode:
    """A group, or the root. waiting: how many of those in it are `backlogged`; running: leases of
    its clients. v, last_left: the highest level that any of them was lifted from, and who stopped
    waiting last."""

    name: str
    parent: str
    backlogged: LowestFirst[str, tuple[float]]
    weight: float = 1.0
    counter: float = 0.0
    waiting: int = 0
    running: int = 0
    v: float = 0.0
    last_left: str | None = None


Node = Client | GroupNode


class Tree:
    """All nodes that were ever heard of."""

    def __init__(self, burst: float, classes: Classes) -> None:
        """burst, classes: see `QueueSettings`."""
        self._burst = burst
        self._classes = classes
        self.turns = ClassTurns(classes, self._waits)
        self.servers = 0  # live replicas, as of the last heartbeat
        self.lifts = True  # what the policy in force says
        # For the bound on the gap (fairness/observe/stated_bound.py):
        self.most = 0  # leases that one node held at once
        self.largest = 0.0  # charge of one lease, by the weight of any node that pays it
        self.clients: dict[str, Client] = {}
        self.root = GroupNode(ROOT, ROOT, LowestFirst(self._key_of))
        self.groups = {ROOT: self.root}

    def client(self, name: str) -> Client:
        """The client of this name."""
        client = self.clients.get(name)
        if client is None:
            client = self.clients[name] = Client(name)
        return client

    def node(self, name: str) -> Node:
        """The client or group of this name."""
        return self._group(name) if is_group(name) else self.client(name)

    def parent(self, node: Node) -> GroupNode:
        """The group that a node stands in, or the root."""
        return self.root if node.parent == ROOT else self._group(node.parent)

    def with_groups(self, node: Node) -> Iterator[Node]:
        """Yield a node and the groups it stands in, the innermost first; nothing for the root."""
        while node is not self.root:
            yield node
            node = self.parent(node)

    def known(self, node: Node) -> bool:
        """Is it any different from a newcomer?"""
        if node.waiting > 0 or node.running > 0:
            return True
        return node.counter > self._start(self.parent(node))

    def counter(self, node: Node) -> float:
        """Its counter; of an unknown one, where it would start."""
        return node.counter if self.known(node) else self._start(self.parent(node))

    def level(self, group: GroupNode) -> float:
        """V, as it would be at a lift now."""
        if not self.lifts:
            return group.v
        lowest = group.backlogged.lowest()
        if lowest is None:
            lowest = group.last_left
        return group.v if lowest is None else max(group.v, self._counter_of(lowest))

    def raise_virtual_time(self, v: float) -> None:
        """V of the root is at least this, and nobody who waits is below the start that follows."""
        if v <= self.root.v:
            return
        self.root.v = v
        start = self._start(self.root)
        for name in list(self.root.backlogged):
            if self._counter_of(name) < start:
                self.node(name).counter = start

    def set_counter(self, node: Node, counter: float) -> None:
        """Give a node another counter."""
        fell = counter < node.counter
        node.counter = counter
        if fell and node.waiting:
            self.parent(node).backlogged.add(node.name)

    def begin(self, node: Node) -> None:
        """An unknown node becomes known."""
        if not self.known(node):
            if isinstance(node, Client):
                node.outputs.clear()
            self.set_counter(node, self._lift(self.parent(node)))

    def add_service(self, client: Client, service: float, weight: float) -> None:
        """Charge a client, and the groups it stands in; what is given back is below 0."""
        if service == 0:
            return
        self.begin(client)
        self.set_counter(client, client.counter + service / weight)
        group = self.parent(client)
        while group is not self.root:
            self.begin(group)
            self.set_counter(group, group.counter + service / group.weight)
            group = self.parent(group)
        if self.turns.owed:
            self.turns.charge(outermost_of(client.parent), service)

    def add_service_elsewhere(
        self, client: Client, service: float, weight: float, debt: float
    ) -> None:
        """Charge a client and its groups for what it had in another pool, no further than so much
        (for each live replica) above those who wait here."""
        for node in self.with_groups(client):
            self.begin(node)
            most = max(node.counter, self.level(self.parent(node)) + debt * self.servers)
            share = node.weight if isinstance(node, GroupNode) else weight
            self.set_counter(node, min(node.counter + service / share, most))

    def begin_waiting(self, node: Node, *, returning: bool) -> None:
        """One more of what is in it waits. The first makes it backlogged, in its own group.

        returning: it comes anew, and is lifted before.
        """
        if node is self.root:
            return
        if not node.waiting:
            parent = self.parent(node)
            if returning:
                self.begin(node)
                node.counter = max(node.counter, self._lift(parent))
            parent.backlogged.add(node.name)
            self.begin_waiting(parent, returning=returning)
        node.waiting += 1

    def end_waiting(self, node: Node) -> None:
        """One of what is in it waits no more."""
        if node is self.root:
            return
        node.waiting -= 1
        if not node.waiting:
            parent = self.parent(node)
            parent.backlogged.discard(node.name)
            parent.last_left = node.name
            self.end_waiting(parent)

    def add_running(self, node: Node, count: int) -> None:
        """So many more leases of it, or fewer."""
        for each in self.with_groups(node):
            each.running += count
            self.most = max(self.most, each.running)

    def note_charge(self, client: Client, charged: float, weight: float) -> None:
        """A lease of this client is charged so much in all by now."""
        for node in self.with_groups(client):
            share = node.weight if isinstance(node, GroupNode) else weight
            self.largest = max(self.largest, charged / share)

    def next_client(self) -> str | None:
        """Whose turn is it?"""
        name = self.turns.first(self._waits) or self.root.backlogged.lowest()
        while name is not None and is_group(name):
            name = self.groups[name].backlogged.lowest()
        return name

    def join_groups(self, client: Client, groups: Sequence[Argument]) -> None:
        """Note in which groups a client stands: weight, name of each, the outermost first.

        Who moves is a newcomer there, and takes along what waits and runs; what was charged stays
        where it was.
        """
        parent = ROOT
        told = zip(groups[::2], groups[1::2], strict=True)
        path = (Group(str(name), float(weight)) for weight, name in told)
        for group in self._classes.place(path):
            parent = group.name
            self._group(parent).weight = group.weight
        if client.parent == parent:
            return
        waiting, running = client.waiting, client.running
        if waiting:
            client.waiting = 1
            self.end_waiting(client)
        self.add_running(self.parent(client), -running)
        client.parent = parent
        new = self.parent(client)
        self.add_running(new, running)
        client.counter = self._lift(new)
        if waiting:
            self.begin_waiting(client, returning=True)
            client.waiting = waiting

    def _key_of(self, name: str) -> tuple[float]:
        return (self._counter_of(name),)

    def _counter_of(self, name: str) -> float:
        return self.groups[name].counter if is_group(name) else self.clients[name].counter

    def _waits(self, name: str) -> bool:
        group = self.groups.get(name)
        return group is not None and group.waiting > 0

    def _group(self, name: str) -> GroupNode:
        group = self.groups.get(name)
        if group is None:
            group = GroupNode(name, parent_of_group(name), LowestFirst(self._key_of))
            self.groups[name] = group
        return group

    def _lift(self, group: GroupNode) -> float:
        group.v = self.level(group)
        return self._start(group)

    def _start(self, group: GroupNode) -> float:
        return group.v - self._burst * self.servers
