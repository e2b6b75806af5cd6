"""Fitting a workload to a server that is slower, faster or smaller than the one it was made for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from loadtests.workloads.workload import Request, Workload


@dataclass(frozen=True, slots=True)
class Scale:
    """How a workload is fitted to a server.

    time_scale: seconds of the clock for one second of the workload. token_scale: factor of all
    lengths. seconds: how much of the workload is played, in seconds of the clock; None: all.
    """

    time_scale: float = 1.0
    token_scale: float = 1.0
    seconds: float | None = None

    def __post_init__(self) -> None:
        if self.time_scale <= 0 or self.token_scale <= 0:
            raise ValueError("scales must be above zero")

    def fit(self, workload: Workload) -> Workload:
        """Return the workload as it will be asked, in its own seconds. No length falls to zero."""
        end = float("inf") if self.seconds is None else self.seconds / self.time_scale
        kept = tuple(self._scaled(request) for request in workload.requests if request.at < end)
        return replace(workload, requests=kept)

    def _scaled(self, request: Request) -> Request:
        if self.token_scale == 1.0:
            return request
        abort_after = request.abort_after
        return replace(
            request,
            input_tokens=self._tokens(request.input_tokens),
            output_tokens=self._tokens(request.output_tokens),
            prefix_tokens=round(request.prefix_tokens * self.token_scale),
            abort_after=None if abort_after is None else self._tokens(abort_after),
        )

    def _tokens(self, tokens: int) -> int:
        return max(1, round(tokens * self.token_scale))


@dataclass(frozen=True, slots=True)
class Demand:
    """What a workload asks for, per second of the clock, until its last arrival."""

    requests_per_s: float
    input_tokens_per_s: float
    output_tokens_per_s: float

    @classmethod
    def of(cls, workload: Workload, time_scale: float) -> Demand:
        """Return the demand of a fitted workload."""
        seconds = max(workload.last_arrival * time_scale, 1e-9)
        asked = workload.requests
        return cls(
            len(asked) / seconds,
            sum(request.input_tokens for request in asked) / seconds,
            sum(request.output_tokens for request in asked) / seconds,
        )
