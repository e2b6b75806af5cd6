"""The running batch: who is in it, what it costs to go on, and who else fits.

Memory is reserved: a candidate is admitted only if the batch, should every request make all the
output it asked for, never needs more than the KV cache holds. With the requests sorted by what
they still have to make, the longest first, the need is

    max over k of  (remaining of the k-th) * k  +  (contexts of the first k)

as when the k-th ends, only those before it are still there, each grown by the remaining steps.
(The rule of the recorded server; see `loadtests.simulator.hardware`.)

A decode step takes 1 from every `remaining` and adds 1 to every context: the need for each k stays
the same. So we keep, instead of both, the step at which a request ends and its context less the
steps made so far, which do not change: the need of those in the batch changes only when one comes
or goes. With a candidate it falls as those in the batch get ahead of it.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import Counter

from loadtests.simulator.hardware import Server
from loadtests.simulator.job import Job

NEVER = 1 << 40


class Batch:
    """Requests that run together. `steps` counts the decode steps it has made in all."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.steps = 0
        self.context = 0
        self.jobs: dict[Job, None] = {}  # a set that keeps its order
        self._reserved: list[tuple[int, int]] = []  # (-last step, context - steps), longest first
        self._prefilling: list[Job] = []
        self._ends: list[tuple[int, int, Job]] = []  # a heap: (last step, number, job)
        self._clients: Counter[str] = Counter()
        self._admitted = 0
        self._needed: int | None = 0  # by those in the batch; None: to be counted anew

    def __len__(self) -> int:
        return len(self.jobs)

    @property
    def free(self) -> int:
        """KV cache tokens that nobody has reserved; not below 0. O(running) after a change."""
        if self._needed is None:
            self._needed = self._need(self._reserved)
        mine = self._server.client_tokens * len(self._clients)
        return max(0, self._server.kv_tokens - mine - self._needed)

    def steps_until_room(self, job: Job) -> int:
        """0 if one more fits now; else a number of decode steps before which it can't.

        (Unless a request ends before.) If it is admitted a step later, it holds one token less at
        any later moment, so the need falls by one token a step at most. O(running).
        """
        clients = len(self._clients) + (job.client not in self._clients)
        room = self._server.kv_tokens - self._server.client_tokens * clients
        if len(self) >= self._server.max_running:
            return NEVER
        reserved = self._reserved.copy()
        insort(reserved, self._reservation(job))
        return max(0, self._need(reserved) - room + 1)

    def add(self, job: Job) -> None:
        """Admit a request. Its prefill makes its first token, decode steps the others."""
        self._admitted += 1
        job.began = self.steps
        self.jobs[job] = None
        self.context += job.prompt + 1
        self._clients[job.client] += 1
        insort(self._reserved, self._reservation(job))
        self._needed = None
        self._prefilling.append(job)
        heapq.heappush(self._ends, (self.steps + job.stops - 1, self._admitted, job))

    def prefilled(self) -> None:
        """The prefill of those added since the last one is over: they have their first token."""
        for job in self._prefilling:
            self._reserved.remove(self._reservation(job, job.began))
            insort(self._reserved, self._reservation(job, job.began, running=True))
        self._needed = None
        self._prefilling.clear()

    def step(self, count: int) -> None:
        """Make decode steps; none of the running may end before the last of them."""
        self.steps += count
        self.context += count * len(self)

    @property
    def next_end(self) -> int:
        """Decode steps until the next request ends."""
        return self._ends[0][0] - self.steps

    def take_ended(self) -> list[Job]:
        """Remove and return the requests that have made their last token."""
        ended = []
        while self._ends and self._ends[0][0] <= self.steps:
            _, _, job = heapq.heappop(self._ends)
            job.made = job.stops
            del self.jobs[job]
            self.context -= job.prompt + job.made
            self._reserved.remove(self._reservation(job, job.began, running=True))
            self._needed = None
            self._clients[job.client] -= 1
            if not self._clients[job.client]:
                del self._clients[job.client]
            ended.append(job)
        return ended

    def _reservation(
        self, job: Job, began: int | None = None, *, running: bool = False
    ) -> tuple[int, int]:
        began = self.steps if began is None else began
        # The recorded rule: the last token takes no room, but a candidate's is counted.
        return -(began + job.output - 1 - running), job.prompt + 1 - began

    @staticmethod
    def _need(reserved: list[tuple[int, int]]) -> int:
        need = contexts = 0
        for number, (minus_end, context) in enumerate(reserved, 1):
            contexts += context
            need = max(need, contexts - minus_end * number)
        return need
