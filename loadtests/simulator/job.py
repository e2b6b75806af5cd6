"""A request on its way through the simulated system."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from loadtests.outcome import Ending, Outcome
from loadtests.workloads.workload import Request


@dataclass(eq=False, slots=True)
class Job:
    """One request and what became of it. Lengths in tokens, times in seconds.

    prompt: what the engine has to prefill. output: what was asked for (and is reserved). stops:
    what will be made: less than `output` for a client that hangs up. made: the truth when it has
    ended; before, as far as whoever charges for it has counted. began: decode steps its engine had
    made when it was admitted.
    """

    id: str
    request: Request
    weight: float
    prompt: int
    over: Callable[[Job], None]
    made: int = 0
    began: int = 0
    first_token: float | None = None
    ended: float = 0.0
    ending: Ending | None = None

    @property
    def client(self) -> str:
        """Whose it is."""
        return self.request.client

    @property
    def output(self) -> int:
        """Tokens asked for."""
        return self.request.output_tokens

    @property
    def stops(self) -> int:
        """Tokens that will be made; one at least, as the prefill makes it."""
        hangs_up = self.request.abort_after
        return max(1, self.output if hangs_up is None else min(hangs_up, self.output))

    def end(self, ending: Ending, now: float) -> None:
        """Note its fate."""
        self.ending, self.ended = ending, now
        self.over(self)

    @property
    def outcome(self) -> Outcome:
        """Its fate, as loadtests.outcome has it."""
        assert self.ending is not None, f"{self.id} has not ended"
        served = self.first_token is not None
        return Outcome(
            request=self.request,
            ending=self.ending,
            ended=self.ended,
            input_tokens=self.request.input_tokens if served else 0,
            output_tokens=self.made,
            first_token=self.first_token,
            last_token=self.ended if served else None,
        )
