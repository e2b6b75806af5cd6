"""The fair queue in the shape vLLM's scheduler expects."""

from collections.abc import Callable, Iterable, Iterator

from vllm.v1.core.sched.request_queue import RequestQueue
from vllm.v1.request import Request

from fairness.fair_queue import FairQueue
from fairness.policy import Key, Policy


class FairRequestQueue(RequestQueue):
    """A vLLM ``RequestQueue`` whose order is a policy's over clients.

    vLLM's words keep their meaning inside a client's line: ``add`` goes to its tail,
    ``prepend`` to its head. Removing a request that is not here does nothing, because vLLM
    removes from both of its queues without knowing which one holds the request.
    """

    def __init__(
        self,
        policy: Policy,
        counter: Callable[[str], float],
        client_of: Callable[[Request], str],
        on_pop: Callable[[Request], None],
        *,
        rank: int,
    ) -> None:
        """Make an empty queue.

        Args:
            policy: the order; see ``fairness.policy``.
            counter: gives a client's counter now.
            client_of: says whose request it is.
            on_pop: is told of every pop. A pop is not yet an admission.
            rank: which queue goes first among requests that the policy finds equal.
        """
        self._queue: FairQueue[Request] = FairQueue(policy, counter, rank=rank)
        self._client_of = client_of
        self._on_pop = on_pop

    def add_request(self, request: Request) -> None:
        """Add a request at the tail of its client's line."""
        self._queue.push(self._client_of(request), request)

    def pop_request(self) -> Request:
        """Remove and return the first request in policy order."""
        request = self._queue.pop()
        self._on_pop(request)
        return request

    def peek_request(self) -> Request:
        """Return the first request in policy order."""
        return self._queue.peek()

    def prepend_request(self, request: Request) -> None:
        """Put a request back at the head of its client's line."""
        self._queue.prepend(self._client_of(request), request)

    def prepend_requests(self, requests: RequestQueue) -> None:
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
        return self._queue.first_key()

    def reorder(self, client: str) -> None:
        """Take note that a client's counter went down."""
        self._queue.reorder(client)

    def set_policy(self, policy: Policy) -> None:
        """Order by another policy from now on."""
        self._queue.set_policy(policy)

    def __bool__(self) -> bool:
        return len(self._queue) > 0

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._queue)
