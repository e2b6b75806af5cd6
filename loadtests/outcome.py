"""What became of a workload's requests: the one form of every result, simulated or real.

All measures are computed from outcomes, so a simulated and a real run are judged by the same
code. Token by token times are not kept: a client's service counts as delivered evenly between its
request's first and last token, as the VTC paper's own scripts do (OSDI 2024), and its input with
the first token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from loadtests.workloads.workload import Request, Workload

Ending = Literal["done", "aborted", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request's fate. Times in seconds since the start of the workload.

    output_tokens: what it received, which is less than it asked for unless ``ending`` is "done".
    first_token, last_token: None when none came. refused: the server said no before it served it.
    """

    request: Request
    ending: Ending
    ended: float
    input_tokens: int = 0
    output_tokens: int = 0
    first_token: float | None = None
    last_token: float | None = None

    @property
    def ttft(self) -> float | None:
        """Seconds from arrival to first token, None without one."""
        return None if self.first_token is None else self.first_token - self.request.at


@dataclass(frozen=True, slots=True)
class Run:
    """A workload as one system served it, and how long that took with the drain (seconds).

    system: how it was served ("vtc", "fcfs", "fairlane", ...). replicas: how many engines.
    seed: of whatever was random. numbers: what else the system tells of itself (preemptions, ...).
    """

    workload: Workload
    system: str
    replicas: int
    outcomes: tuple[Outcome, ...]
    makespan: float
    seed: int = 0
    numbers: dict[str, float] | None = None
