"""The fair queue: a line per client, and an order among the lines.

State: for every waiting item its client and its **place**; for every backlogged client the line
of its items, a heap of ``lowest_first`` by place; and such a heap over the clients, by the policy's
key for the first item in the client's line. Where clients stand in groups (``fairness.groups``)
there is a heap for each group and one for the root, of the clients and groups in it.

Places are handed out like numbers at a counter: a ``push`` takes the next higher one, a
``prepend`` the next lower one. So over all lines they tell exactly where each item would stand in
one single deque. That makes FCFS (the lowest place first) the same as a plain deque, prepends
included, and needs no clock. Within its client's line an item of smaller **priority** stands before
all others, whenever it came; that is nobody else's business.

An item that leaves for a while and must not lose its place takes it along (``place_of``,
``next_place``) and comes back to it (``insert``).

Cost: ``push``, ``prepend``, ``insert``, ``pop``, ``peek`` and ``remove`` are O(log n) in the
client's own items and in backlogged clients (amortised; see ``lowest_first`` for the repairs).
Nothing searches a line. Iterating sorts all items.
"""

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from fairness.groups import ROOT, parent_of_group
from fairness.lowest_first import LowestFirst
from fairness.policy import Key, Place, Policy, Standing, standing

T = TypeVar("T", bound=Hashable)


class FairQueue(Generic[T]):
    """Waiting items of many clients, served in a policy's order.

    The queue reads counters, it does not keep them. When a counter goes **up**, nothing need
    be done; when it goes **down** (a refund, news from the global queue), call ``reorder``.
    """

    def __init__(
        self,
        policy: Policy,
        counter: Callable[[str], float],
        *,
        group_of: Callable[[str], str] = lambda client: ROOT,
        next_class: Callable[[Callable[[str], bool]], str | None] = lambda waits: None,
        rank: int = 0,
    ) -> None:
        """Make an empty queue.

        Args:
            policy: the order; see ``fairness.policy``.
            counter: gives a client's counter now, and a group's.
            group_of: gives the group that a client stands in; asked when its line opens.
            next_class: chooses a priority class of those that wait, by their groups; None where
                there are none (``fairness.classes``). ``counter`` gives them in that order.
            rank: between queues, whose places count as earlier (the lower rank's).
        """
        self._policy = policy
        self._counter = counter
        self._group_of = group_of
        self._next_class = next_class
        self._rank = rank
        self._groups: dict[str, str] = {}  # client -> group, of those with a line
        self._lines: dict[str, LowestFirst[T, Place]] = {}
        self._client_of: dict[T, str] = {}
        self._places: dict[T, Place] = {}
        self._heads: dict[str, Place] = {}  # of the first in each line: what the order looks at
        self._order: LowestFirst[str, Key] = LowestFirst(self._key_of)
        self._levels = {ROOT: self._order}
        self._next_back = 0
        self._next_front = -1

    def push(self, client: str, item: T, priority: int = 0) -> None:
        """Add an item at the tail of its client's line, among those of its priority.

        Raises:
            ValueError: the item is queued already.
        """
        self.insert(client, item, self.next_place(priority))

    def prepend(self, client: str, item: T, priority: int = 0) -> None:
        """Put an item back at the head of its client's line, among those of its priority.

        Raises:
            ValueError: the item is queued already.
        """
        place = Place(priority, self._rank, self._next_front)
        self._next_front -= 1
        self.insert(client, item, place)

    def insert(self, client: str, item: T, place: Place) -> None:
        """Put an item into its client's line at a place that was given out before.

        Raises:
            ValueError: the item is queued already.
        """
        if item in self._client_of:
            raise ValueError(f"{item!r} is queued already")
        self._client_of[item] = client
        self._places[item] = place
        line = self._lines.get(client)
        if line is None:
            line = self._lines[client] = LowestFirst(self._places.__getitem__)
            self._groups[client] = self._group_of(client)
        line.add(item)
        head = self._heads.get(client)
        if head is None or place < head:
            self._heads[client] = place
            self._rise(client)

    def next_place(self, priority: int = 0) -> Place:
        """Give out the place at the tail, to be used by an ``insert`` later."""
        place = Place(priority, self._rank, self._next_back)
        self._next_back += 1
        return place

    def place_of(self, item: T) -> Place:
        """Return where an item stands; KeyError if it is not here."""
        return self._places[item]

    def peek(self) -> T:
        """Return the item that ``pop`` would, without removing it.

        Raises:
            IndexError: the queue is empty.
        """
        head = self._lines[self._first_client()].lowest()
        assert head is not None, "a line without items is closed"
        return head

    def pop(self) -> T:
        """Remove and return the first item in policy order.

        Raises:
            IndexError: the queue is empty.
        """
        item = self.peek()
        self.remove(item)
        return item

    def remove(self, item: T) -> bool:
        """Remove an item wherever it stands; return whether it was here."""
        client = self._client_of.pop(item, None)
        if client is None:
            return False
        line, place = self._lines[client], self._places.pop(item)
        line.discard(item)
        first = line.lowest()
        if first is None:
            self._close(client)
            return True
        head = self._heads[client] = self._places[first]
        if head.number < place.number:  # it came earlier: under FCFS, it goes earlier
            self._rise(client)
        return True

    def first_key(self) -> Key:
        """Return the policy's key of the first item, to compare queues by.

        Raises:
            IndexError: the queue is empty.
        """
        client = self._first_client()
        return self._policy.key(self._standing(client), self._heads[client])

    def reorder(self, node: str) -> None:
        """Find a client, or a group, its new position after its counter went down."""
        if node in self._heads:
            self._levels[self._groups[node]].add(node)
        elif node in self._levels and node != ROOT:
            self._levels[parent_of_group(node)].add(node)

    def set_policy(self, policy: Policy) -> None:
        """Serve in another order from now on. O(n) in backlogged clients."""
        self._policy = policy
        # Innermost first: under FCFS a group's key is that of the first in it.
        for group in sorted(self._levels, key=len, reverse=True):
            self._levels[group].rebuild()

    def __contains__(self, item: object) -> bool:
        return item in self._client_of

    def __len__(self) -> int:
        return len(self._client_of)

    def __iter__(self) -> Iterator[T]:
        """Iterate in policy order as it is now (a sorted copy)."""
        standings = {client: self._standing(client) for client in self._lines}
        keyed = [
            (self._policy.key(standings[client], self._places[item]), item)
            for item, client in self._client_of.items()
        ]
        keyed.sort(key=lambda entry: entry[0])
        return iter([item for _, item in keyed])

    def _first_client(self) -> str:
        node = self._next_class(self._levels.__contains__) if self._policy.by_client else None
        node = node or self._order.lowest()
        if node is None:
            raise IndexError("the fair queue is empty")
        while node not in self._heads:
            node = self._levels[node].lowest()
            assert node is not None, "a group without clients is closed"
        return node

    def _standing(self, client: str) -> Standing:
        return standing(client, self._groups[client], self._counter)

    def _key_of(self, node: str) -> Key:
        """What a level orders by. (The hot path of decisions.)"""
        head = self._heads.get(node)
        if head is not None:
            return self._policy.key((self._counter(node), node), head)
        if self._policy.by_client:
            return (self._counter(node), node)
        first = self._levels[node].lowest()
        assert first is not None, "a group without clients is closed"
        return self._key_of(first)

    def _rise(self, client: str) -> None:
        """Take note, on each level, of a client that is new or whose first item is another."""
        node, group = client, self._groups[client]
        while True:
            level = self._levels.get(group)
            if level is None:
                level = self._levels[group] = LowestFirst(self._key_of)
            level.add(node)
            if group == ROOT:
                return
            node, group = group, parent_of_group(group)

    def _close(self, client: str) -> None:
        """A line is empty."""
        del self._lines[client], self._heads[client]
        node, group = client, self._groups.pop(client)
        while True:
            level = self._levels[group]
            level.discard(node)
            if group == ROOT or len(level):
                return
            del self._levels[group]
            node, group = group, parent_of_group(group)
