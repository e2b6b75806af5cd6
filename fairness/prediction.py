"""Predicting how many tokens a request will make, from what others made before it.

A prediction is charged at the grant, in place of nothing: while the request makes fewer tokens it
is charged no more, beyond them token by token, and what it did not make is given back at the end
(VTC, OSDI 2024, section 4.4: "VTC with length prediction"). Without one, a client whose requests
have just been admitted looks as if it had received nothing but prompts, and is given too many at
once. A wrong prediction costs fairness for the life of one request, never correctness.

A predictor is a function of the client's history (the output lengths of its last `WINDOW` settled
requests, oldest first) and of the pool's average (of about its last `POOL_WINDOW` requests, whoever
sent them).

Why configurations get the pool's average by default: what a client's own history says is charged
against it alone, so clients with long answers wait for service they are only expected to get, and a
mix of clients comes out less even than without predictions. A common number says no more than that
whoever has just been admitted has more to come, and that is what keeps equals from drifting apart
(docs/benchmarks.md has both, simulated).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WINDOW = 20
RECENT = 5  # the paper's moving average
POOL_WINDOW = 300


@dataclass(frozen=True, slots=True)
class PoolAverage:
    """Mean output of a pool's requests; of the first `POOL_WINDOW` exactly, then of about so many.

    tokens: the mean. requests: how many it is of, at most `POOL_WINDOW`.
    """

    tokens: float = 0.0
    requests: int = 0

    def after(self, output: int) -> "PoolAverage":
        """Return the average with one more request."""
        requests = min(self.requests + 1, POOL_WINDOW)
        return PoolAverage(self.tokens + (output - self.tokens) / requests, requests)


NO_AVERAGE = PoolAverage()

Predictor = Callable[[Sequence[int], float, float], float]


def _none(history: Sequence[int], level: float, pool_average: float) -> float:
    return 0.0


def _pool_average(history: Sequence[int], level: float, pool_average: float) -> float:
    return pool_average


def _moving_average(history: Sequence[int], level: float, pool_average: float) -> float:
    recent = history[-RECENT:]
    return sum(recent) / len(recent) if recent else 0.0


def _quantile(history: Sequence[int], level: float, pool_average: float) -> float:
    """The smallest length that at least `level` of the history does not exceed."""
    if not history:
        return 0.0
    return float(sorted(history)[max(0, math.ceil(level * len(history)) - 1)])


PREDICTORS: dict[str, Predictor] = {
    "none": _none,
    "pool_average": _pool_average,
    "moving_average": _moving_average,
    "quantile": _quantile,
}


@dataclass(frozen=True, slots=True)
class Prediction:
    """Which predictor, and how much of what it says is charged in advance.

    share: 0 to 1 of the prediction. level: of the quantile, above 0, at most 1.

    Raises:
        ValueError: an unknown predictor, or a share or level out of range.
    """

    predictor: str = "none"
    share: float = 1.0
    level: float = 0.5

    def __post_init__(self) -> None:
        if self.predictor not in PREDICTORS:
            choices = ", ".join(PREDICTORS)
            raise ValueError(f"unknown predictor {self.predictor!r}; choose one of {choices}")
        if not 0 <= self.share <= 1:
            raise ValueError(f"the share of a prediction is from 0 to 1, not {self.share}")
        if not 0 < self.level <= 1:
            raise ValueError(f"a quantile's level is above 0 and at most 1, not {self.level}")

    @property
    def window(self) -> int:
        """How many of a client's past lengths the predictor looks at."""
        return {"moving_average": RECENT, "quantile": WINDOW}.get(self.predictor, 0)

    def of(self, history: Sequence[int], pool: PoolAverage = NO_AVERAGE) -> float:
        """Output tokens to charge in advance."""
        return self.share * PREDICTORS[self.predictor](history, self.level, pool.tokens)
