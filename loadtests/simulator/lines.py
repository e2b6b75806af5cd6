"""Orders of service: what waits for a server, or for many, and who goes first."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection

from fairness.fair_queue import FairQueue
from fairness.policy import FCFS, Policy
from loadtests.simulator.accounts import Accounts
from loadtests.simulator.job import Job
from loadtests.simulator.prices import Price


class FairLine:
    """The product's `FairQueue` over counters: FCFS, LCF, VTC and all their prices."""

    def __init__(self, policy: Policy, accounts: Accounts, *, shared: bool = False) -> None:
        """shared: several engines take from it, or charge its counters."""
        self._accounts = accounts
        self._queue: FairQueue[Job] = FairQueue(policy, accounts.counters.counter)
        self._steady = isinstance(policy, FCFS) and not shared
        accounts.on_lowered(self._queue.reorder)

    def add(self, job: Job) -> None:
        """A request arrives."""
        self._accounts.arrived(job)
        self._queue.push(job.client, job)

    def first(self) -> Job | None:
        """See `engine.Line`."""
        return self._queue.peek() if len(self._queue) else None

    def admit(self, job: Job) -> None:
        """See `engine.Line`."""
        self._queue.remove(job)
        self._accounts.admitted(job)

    def made(self, jobs: Collection[Job], tokens: int) -> None:
        """See `engine.Line`."""
        self._accounts.made(jobs, tokens)

    def ended(self, jobs: Collection[Job], batch: Collection[Job]) -> None:
        """See `engine.Line`."""
        self._accounts.ended(jobs, batch)

    @property
    def steady(self) -> bool:
        """See `engine.Line`."""
        return self._steady


class DeficitRoundRobin:
    """Deficit round robin for requests whose cost shows only as they are served.

    Clients that wait take turns. When its turn comes, a client's account is credited a quantum (by
    its weight); it is served as long as its account is above zero, and what its requests cost is
    taken off as it shows, so an account may go deep into debt and be passed over for many turns.
    A client that has nothing waiting keeps its debts, but no credit. (After Shreedhar and Varghese,
    SIGCOMM 1995, with debts; the VTC paper compares with such a variant in its appendix.)
    """

    steady = False

    def __init__(self, price: Price, quantum: float) -> None:
        """quantum: service a turn."""
        self._price = price
        self._quantum = quantum
        self._lines: dict[str, deque[Job]] = {}
        self._turns: deque[str] = deque()  # the first has its turn
        self._account: defaultdict[str, float] = defaultdict(float)

    def add(self, job: Job) -> None:
        """A request arrives."""
        if job.client not in self._lines:
            self._lines[job.client] = deque()
            self._turns.append(job.client)
        self._lines[job.client].append(job)

    def first(self) -> Job | None:
        """See `engine.Line`."""
        if not self._turns:
            return None
        while self._account[self._turns[0]] <= 0:
            self._turns.rotate(-1)
            client = self._turns[0]
            self._account[client] += self._quantum * self._lines[client][0].weight
        return self._lines[self._turns[0]][0]

    def admit(self, job: Job) -> None:
        """See `engine.Line`."""
        line = self._lines[job.client]
        line.popleft()
        self._charge(job.client, self._price.admission(job))
        if not line:
            del self._lines[job.client]
            self._turns.remove(job.client)
            self._account[job.client] = min(0.0, self._account[job.client])

    def made(self, jobs: Collection[Job], tokens: int) -> None:
        """See `engine.Line`."""
        for job in jobs:
            before, job.made = job.made, job.made + tokens
            self._charge(job.client, self._price.tokens(job, before, job.made))

    def ended(self, jobs: Collection[Job], batch: Collection[Job]) -> None:
        """See `engine.Line`."""
        for job in jobs:
            self._charge(job.client, self._price.ending(job))

    def _charge(self, client: str, service: float) -> None:
        self._account[client] -= service
