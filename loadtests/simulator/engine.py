"""The recorded server's loop on the virtual clock.

- Nothing runs: admit; one prefill over all admitted prompts makes each request's first token. If
  nothing waits, look again every 10 ms.
- Something runs: 10 decode steps, then admit. What is admitted is prefilled alone (decoding
  pauses), joins the batch, and the count starts anew. If nothing could be admitted, try again
  after every single step until something is.
- Admission takes the line's first as long as it fits, and skips nobody. There is no preemption.

Steps in which nothing can happen are one event: their times are an arithmetic series (`hardware`),
their tokens are charged in bulk. Whoever looks at the counters in between calls `catch_up` first;
whoever changes the line calls `wake`, which cuts the stretch of steps short.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Protocol

from loadtests.simulator.batch import Batch
from loadtests.simulator.clock import Clock
from loadtests.simulator.hardware import Server
from loadtests.simulator.job import Job


class Line(Protocol):
    """What waits for an engine, in its order, and who is charged for what the engine does."""

    def first(self) -> Job | None:
        """Who is to be admitted next."""
        ...

    def admit(self, job: Job) -> None:
        """The first enters a batch."""
        ...

    def made(self, jobs: Collection[Job], tokens: int) -> None:
        """Each of these has made so many tokens."""
        ...

    def ended(self, jobs: Collection[Job], batch: Collection[Job]) -> None:
        """These have made their last token; batch: all who were in that step."""
        ...

    @property
    def steady(self) -> bool:
        """Is it sure that tokens made don't change who is first?"""
        ...


class Engine:
    """One model server."""

    def __init__(self, clock: Clock, server: Server, line: Line) -> None:
        self._clock = clock
        self._server = server
        self._line = line
        self.batch = Batch(server)
        self._prefilling: list[Job] = []
        self._since_admission = 0
        self._idle_since: float | None = 0.0
        self._polls = False
        # The stretch of decode steps under way: when it began, with what, how long, how far.
        self._began = 0.0
        self._context = 0
        self._planned = 0
        self._done = 0
        self._stretch = 0
        self._refused: Job | None = None  # it does not fit...
        self._refused_until = 0  # ...before this step, unless the batch changes

    @property
    def idle(self) -> bool:
        """Does nothing run?"""
        return self._idle_since is not None

    def wake(self) -> None:
        """The line has changed: look at it as soon as the loop allows."""
        if self._idle_since is not None:
            if not self._polls and self._line.first() is not None:
                self._polls = True
                polls = math.ceil((self._clock.now - self._idle_since) / self._server.poll_s)
                at = self._idle_since + polls * self._server.poll_s
                self._clock.at(max(at, self._clock.now), self._poll)
        elif not self._prefilling:
            self._cut_short()

    def catch_up(self) -> None:
        """Account for the decode steps that have ended by now."""
        if self._idle_since is None and not self._prefilling:
            passed = self._clock.now - self._began
            steps = self._server.times.decoded(passed, len(self.batch), self._context)
            self._decode(min(steps, self._planned))

    def _poll(self) -> None:
        self._polls = False
        if self._idle_since is not None and self._admit():
            self._idle_since = None

    def _admit(self) -> bool:
        """Begin a prefill over whoever fits; whether there is one."""
        admitted: list[Job] = []
        tokens = 0
        while (job := self._line.first()) is not None:
            if tokens + job.prompt > self._server.prefill_tokens or not self._fits(job):
                break
            self._line.admit(job)
            self.batch.add(job)
            self._refused = None
            admitted.append(job)
            tokens += job.prompt
        if job is not None and not self.batch:
            raise ValueError(f"{job.request} can never fit in {self._server}")
        if admitted:
            self._prefilling = admitted
            self._clock.after(self._server.times.prefill(tokens), self._prefilled)
        return bool(admitted)

    def _fits(self, job: Job) -> bool:
        if self._refused is job and self.batch.steps < self._refused_until:
            return False
        steps = self.batch.steps_until_room(job)
        self._refused, self._refused_until = (job, self.batch.steps + steps) if steps else (None, 0)
        return steps == 0

    def _prefilled(self) -> None:
        admitted, self._prefilling = self._prefilling, []
        for job in admitted:
            job.first_token = self._clock.now
        self._since_admission = 0
        self.batch.prefilled()
        self._line.made(admitted, 1)
        self._part()
        self._go_on()

    def _go_on(self) -> None:
        """Between two steps: admit, or plan the next steps."""
        due = not self.batch or self._since_admission >= self._server.admission_steps
        if due and self._admit():
            return
        if not self.batch:
            self._idle_since = self._clock.now
            return
        steps = self.batch.next_end
        if self._line.first() is not None:
            if not due:
                steps = min(steps, self._server.admission_steps - self._since_admission)
            elif self._line.steady and self._refused is not None:
                steps = min(steps, self._refused_until - self.batch.steps)
            else:
                steps = 1
        self._began, self._context, self._done = self._clock.now, self.batch.context, 0
        self._plan(steps)

    def _plan(self, steps: int) -> None:
        self._planned = steps
        self._stretch += 1
        stretch = self._stretch
        seconds = self._server.times.decode(steps, len(self.batch), self._context)
        self._clock.at(max(self._began + seconds, self._clock.now), lambda: self._decoded(stretch))

    def _cut_short(self) -> None:
        self.catch_up()
        if self._done == self._planned:
            return  # its end is due at this very moment
        until_due = self._server.admission_steps - (self._since_admission - self._done)
        steps = max(self._done + 1, until_due)
        if steps < self._planned:
            self._plan(steps)

    def _decoded(self, stretch: int) -> None:
        if stretch != self._stretch:
            return  # it was cut short
        self._decode(self._planned)
        self._part()
        self._go_on()

    def _decode(self, steps: int) -> None:
        """Account for the stretch's steps up to this one."""
        new = steps - self._done
        if new > 0:
            self._done = steps
            self._since_admission += new
            self.batch.step(new)
            self._line.made(self.batch.jobs, new)

    def _part(self) -> None:
        """Let those go who have made their last token."""
        if self.batch.jobs and self.batch.next_end == 0:
            batch = tuple(self.batch.jobs)
            ended = self.batch.take_ended()
            self._refused = None
            self._line.ended(ended, batch)
            for job in ended:
                job.end("done" if job.made == job.output else "aborted", self._clock.now)
