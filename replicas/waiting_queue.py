"""The fair queue in the shape vLLM's scheduler expects, and two that park what can't run yet."""

from collections.abc import Callable, Iterable, Iterator

from vllm.v1.core.sched.request_queue import RequestQueue
from vllm.v1.request import Request

from fairness.counters import VirtualTokenCounters
from fairness.fair_queue import FairQueue
from fairness.policy import Key, Place, Policy


class FairRequestQueue(RequestQueue):
    """A vLLM ``RequestQueue`` whose order is a policy's over clients.

    vLLM's words keep their meaning inside a client's line: ``add`` goes to its tail,
    ``prepend`` to its head; a request of smaller ``priority`` stands before the others. Removing
    a request that is not here does nothing, because vLLM removes from both of its queues without
    knowing which one holds the request.
    """

    def __init__(
        self,
        policy: Policy,
        counters: VirtualTokenCounters,
        client_of: Callable[[Request], str],
        on_pop: Callable[[Request], None],
        before_choice: Callable[[], None],
        *,
        rank: int,
    ) -> None:
        """Make an empty queue.

        Args:
            policy: the order; see ``fairness.policy``.
            counters: of the clients and the groups that they stand in.
            client_of: says whose request it is.
            on_pop: is told of every pop. A pop is not yet an admission.
            before_choice: brings the counters up to date. Called whenever somebody asks who is
                first.
            rank: which queue goes first among requests that the policy finds equal.
        """
        self._queue: FairQueue[Request] = FairQueue(
            policy,
            counters.order,
            group_of=counters.group_of,
            next_class=counters.next_class,
            rank=rank,
        )
        self._client_of = client_of
        self._on_pop = on_pop
        self._before_choice = before_choice

    def add_request(self, request: Request) -> None:
        """Add a request at the tail of its client's line.

        One that is here already moves there: vLLM adds a session that was preempted, and then
        answered with what was on its way, a second time.
        """
        self.remove_request(request)
        self._queue.push(self._client_of(request), request, request.priority)

    def pop_request(self) -> Request:
        """Remove and return the first request in policy order."""
        request = self._queue.pop()
        self._on_pop(request)
        return request

    def peek_request(self) -> Request:
        """Return the first request in policy order."""
        self._before_choice()
        return self._queue.peek()

    def prepend_request(self, request: Request) -> None:
        """Put a request back at the head of its client's line."""
        self._queue.prepend(self._client_of(request), request, request.priority)

    def prepend_requests(self, requests: Iterable[Request]) -> None:
        """Put requests back, the last of them foremost (as vLLM's own queue does)."""
        for request in requests:
            self.prepend_request(request)

    def remove_request(self, request: Request) -> None:
        """Remove a request if it is here."""
        self._queue.remove(request)

    def remove_requests(self, requests: Iterable[Request]) -> None:
        """Remove those of the requests that are here."""
        for request in requests:
            self._queue.remove(request)

    def first_key(self) -> Key:
        """Return the policy's key of the first request; IndexError when empty."""
        self._before_choice()
        return self._queue.first_key()

    def reorder(self, node: str) -> None:
        """Take note that the counter of a client or a group went down."""
        self._queue.reorder(node)

    def set_policy(self, policy: Policy) -> None:
        """Order by another policy from now on."""
        self._queue.set_policy(policy)

    def __bool__(self) -> bool:
        return len(self._queue) > 0

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._queue)


class ParkingRequestQueue(FairRequestQueue):
    """A queue that also holds requests which can't run yet, without looking again and again.

    Some requests wait for something from outside (a grammar, KV on its way, input for a session);
    vLLM's word for them is *blocked*. These are **parked**: beside the order, so that choosing the
    next request does not meet them. ``wake`` moves those that are ready into the order, at the
    place they took when they came. Others that vLLM may skip (too many LoRAs in the batch, output
    still on its way) could run in any step, so they stay in order and vLLM looks at each when its
    turn comes.

    Whoever is popped and put back has its old place again: looking at a request moves nobody.
    """

    def __init__(
        self,
        policy: Policy,
        counters: VirtualTokenCounters,
        client_of: Callable[[Request], str],
        on_pop: Callable[[Request], None],
        before_choice: Callable[[], None],
        *,
        rank: int,
        is_blocked: Callable[[Request], bool],
    ) -> None:
        """Make an empty queue; ``is_blocked`` says whether a request waits for an outside event."""
        super().__init__(policy, counters, client_of, on_pop, before_choice, rank=rank)
        self._is_blocked = is_blocked
        self._parked: dict[Request, Place] = {}
        self._left: dict[Request, Place] = {}  # where those stood that were popped in this step

    def wake(self, is_ready: Callable[[Request], bool]) -> None:
        """Put those of the parked that are ready where they belong. O(parked)."""
        ready = [request for request in self._parked if is_ready(request)]
        for request in ready:
            self._queue.insert(self._client_of(request), request, self._parked.pop(request))

    def end_step(self) -> None:
        """Forget where those stood that were popped: who is not back by now is gone."""
        self._left.clear()

    def add_request(self, request: Request) -> None:
        """Add a request at the tail of its client's line; parked, if it is blocked."""
        self.remove_request(request)
        self._put(request, self._queue.next_place(request.priority))

    def pop_request(self) -> Request:
        """Remove and return the first request in policy order that is ready."""
        request = self._queue.peek()
        self._left[request] = self._queue.place_of(request)
        return super().pop_request()

    def prepend_request(self, request: Request) -> None:
        """Put a request back at its place; one that comes from elsewhere heads its line."""
        if request in self._left:
            self._put(request, self._left.pop(request))
        else:
            super().prepend_request(request)

    def prepend_requests(self, requests: Iterable[Request]) -> None:
        """Put back what a step skipped, latest first (as vLLM's own queue does)."""
        for request in reversed(list(requests)):
            self.prepend_request(request)

    def remove_request(self, request: Request) -> None:
        """Remove a request if it is here."""
        if self._parked.pop(request, None) is None:
            super().remove_request(request)

    def remove_requests(self, requests: Iterable[Request]) -> None:
        """Remove those of the requests that are here."""
        for request in requests:
            self.remove_request(request)

    def __bool__(self) -> bool:
        """Whether there is one that may run now: vLLM asks before it looks at the first."""
        return len(self._queue) > 0

    def __len__(self) -> int:
        return len(self._queue) + len(self._parked)

    def __iter__(self) -> Iterator[Request]:
        yield from super().__iter__()
        yield from self._parked

    def _put(self, request: Request, place: Place) -> None:
        if self._is_blocked(request):
            self._parked[request] = place
        else:
            self._queue.insert(self._client_of(request), request, place)


class SkippedRequestQueue(ParkingRequestQueue):
    """The second queue of vLLM up to 0.30: who is skipped in the first one comes here.

    There are no preempted requests here, so who comes from elsewhere is new and last.
    """

    def prepend_request(self, request: Request) -> None:
        """Put a request back at its place; one that comes from elsewhere goes to the tail."""
        old = self._left.pop(request) if request in self._left else None
        self._put(request, old or self._queue.next_place(request.priority))
