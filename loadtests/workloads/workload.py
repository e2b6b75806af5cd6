"""What clients send and when: the one form of every workload, simulated or real.

A workload is a list of requests with their arrival times; nothing in it depends on how a server
answers (an *open loop*). Lengths are exact: an engine is asked to make that many tokens, whatever
its model would like to say (``ignore_eos``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a client.

    at: arrival, in seconds since the start of the workload. input_tokens, output_tokens: lengths.
    prefix, prefix_tokens: the first tokens of the prompt are those of this prefix, which other
    requests may share; None and 0 when the prompt has a beginning of its own. abort_after: the
    client hangs up after so many output tokens; None: it listens to the end. entry: which of the
    cluster's routers it reaches; None: any. key: which of the client's API keys it uses.
    """

    at: float
    client: str
    input_tokens: int
    output_tokens: int
    prefix: str | None = None
    prefix_tokens: int = 0
    abort_after: int | None = None
    entry: int | None = None
    key: int = 0


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests in order of arrival. weights: 1.0 for a client that is not named."""

    name: str
    requests: tuple[Request, ...]
    weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def clients(self) -> tuple[str, ...]:
        """Names of all clients, sorted."""
        return tuple(sorted({request.client for request in self.requests}))

    @property
    def last_arrival(self) -> float:
        """Seconds until the last request; 0 when there is none."""
        return self.requests[-1].at if self.requests else 0.0
