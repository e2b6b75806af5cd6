"""The fair queue: a line per client, and an order among the lines.

State: for every backlogged client a line of its waiting items, each with its **place**; for
every item the client it belongs to; and the heap of ``lowest_first`` over the clients, keyed
by the policy's key for the first item in the client's line.

Places are handed out like numbers at a counter: a ``push`` takes the next higher one, a
``prepend`` the next lower one. So within a line places rise from head to tail, and over all
lines they tell exactly where each item would stand in one single deque. That makes FCFS (the
lowest place first) the same as a plain deque, prepends included, and needs no clock.

An item that leaves for a while and must not lose its place takes it along (``place_of``,
``next_place``) and comes back to it (``insert``).

Cost: ``push``, ``prepend``, ``pop``, ``peek`` and ``remove`` are O(1) plus at most an O(log n)
heap operation, n being the backlogged clients (amortised; see ``lowest_first`` for the
repairs). Nothing searches a line. Iterating sorts all items; an ``insert`` that is not at the
tail sorts its line.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from fairness.lowest_first import LowestFirst
from fairness.policy import Key, Place, Policy

T = TypeVar("T", bound=Hashable)


class FairQueue(Generic[T]):
    """Waiting items of many clients, served in a policy's order.

    The queue reads counters, it does not keep them. When a counter goes **up**, nothing need
    be done; when it goes **down** (a refund, news from the global queue), call ``reorder``.
    """

    def __init__(self, policy: Policy, counter: Callable[[str], float], *, rank: int = 0) -> None:
        """Make an empty queue.

        Args:
            policy: the order; see ``fairness.policy``.
            counter: gives a client's counter now.
            rank: between queues, whose places count as earlier (the lower rank's).
        """
        self._policy = policy
        self._counter = counter
        self._rank = rank
        self._lines: dict[str, OrderedDict[T, Place]] = {}
        self._client_of: dict[T, str] = {}
        self._order: LowestFirst[Key] = LowestFirst(self._key_of_head)
        self._next_back = 0
        self._next_front = -1

    def push(self, client: str, item: T) -> None:
        """Add an item at the tail of its client's line.

        Raises:
            ValueError: the item is queued already.
        """
        line = self._line_for(client, item)
        line[item] = self.next_place()
        if len(line) == 1:
            self._order.add(client)

    def insert(self, client: str, item: T, place: Place) -> None:
        """Put an item into its client's line at a place that was given out before.

        Raises:
            ValueError: the item is queued already.
        """
        line = self._line_for(client, item)
        ahead_of_others = bool(line) and place < next(reversed(line.values()))
        line[item] = place
        if ahead_of_others:
            for other in sorted(line, key=line.__getitem__):
                line.move_to_end(other)
        if next(iter(line)) == item:
            self._order.add(client)

    def next_place(self) -> Place:
        """Give out the place at the tail, to be used by an ``insert`` later."""
        place = (self._rank, self._next_back)
        self._next_back += 1
        return place

    def place_of(self, item: T) -> Place:
        """Return where an item stands; KeyError if it is not here."""
        return self._lines[self._client_of[item]][item]

    def prepend(self, client: str, item: T) -> None:
        """Put an item back at the head of its client's line.

        Raises:
            ValueError: the item is queued already.
        """
        line = self._line_for(client, item)
        line[item] = (self._rank, self._next_front)
        line.move_to_end(item, last=False)
        self._next_front -= 1
        self._order.add(client)

    def peek(self) -> T:
        """Return the item that ``pop`` would, without removing it.

        Raises:
            IndexError: the queue is empty.
        """
        return next(iter(self._lines[self._first_client()]))

    def pop(self) -> T:
        """Remove and return the first item in policy order.

        Raises:
            IndexError: the queue is empty.
        """
        client = self._first_client()
        line = self._lines[client]
        item, _ = line.popitem(last=False)
        del self._client_of[item]
        self._close_if_empty(client, line)
        return item

    def remove(self, item: T) -> bool:
        """Remove an item wherever it stands; return whether it was here."""
        client = self._client_of.pop(item, None)
        if client is None:
            return False
        line = self._lines[client]
        del line[item]
        self._close_if_empty(client, line)
        return True

    def first_key(self) -> Key:
        """Return the policy's key of the first item, to compare queues by.

        Raises:
            IndexError: the queue is empty.
        """
        return self._key_of_head(self._first_client())

    def reorder(self, client: str) -> None:
        """Find a client its new position after its counter went down."""
        if client in self._order:
            self._order.add(client)

    def set_policy(self, policy: Policy) -> None:
        """Serve in another order from now on. O(n) in backlogged clients."""
        self._policy = policy
        self._order.rebuild()

    def __contains__(self, item: object) -> bool:
        return item in self._client_of

    def __len__(self) -> int:
        return len(self._client_of)

    def __iter__(self) -> Iterator[T]:
        """Iterate in policy order as it is now (a sorted copy)."""
        keyed = [
            (self._policy.key(self._counter(client), client, place), item)
            for client, line in self._lines.items()
            for item, place in line.items()
        ]
        keyed.sort(key=lambda entry: entry[0])
        return iter([item for _, item in keyed])

    def _line_for(self, client: str, item: T) -> OrderedDict[T, Place]:
        if item in self._client_of:
            raise ValueError(f"{item!r} is queued already")
        self._client_of[item] = client
        line = self._lines.get(client)
        if line is None:
            line = self._lines[client] = OrderedDict()
        return line

    def _close_if_empty(self, client: str, line: OrderedDict[T, Place]) -> None:
        if not line:
            del self._lines[client]
            self._order.discard(client)

    def _first_client(self) -> str:
        client = self._order.lowest()
        if client is None:
            raise IndexError("the fair queue is empty")
        return client

    def _key_of_head(self, client: str) -> Key:
        place = next(iter(self._lines[client].values()))
        return self._policy.key(self._counter(client), client, place)
