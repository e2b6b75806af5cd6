"""Predicting how many tokens a request will make, from its client's last ones.

A prediction is charged at the grant, in place of nothing: while the request makes fewer tokens it
is charged no more, beyond them token by token, and what it did not make is given back at the end
(VTC, OSDI 2024, section 4.4: "VTC with length prediction"). Without one, a client whose requests
have just been admitted looks as if it had received nothing but prompts, and is given too many at
once. A wrong prediction costs fairness for the life of one request, never correctness.

A predictor is a function of the client's history: the output lengths of its last `WINDOW`
settled requests, oldest first.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WINDOW = 20
RECENT = 5  # the paper's moving average

Predictor = Callable[[Sequence[int], float], float]


def _none(history: Sequence[int], level: float) -> float:
    return 0.0


def _moving_average(history: Sequence[int], level: float) -> float:
    recent = history[-RECENT:]
    return sum(recent) / len(recent) if recent else 0.0


def _quantile(history: Sequence[int], level: float) -> float:
    """The smallest length that at least `level` of the history does not exceed."""
    if not history:
        return 0.0
    return float(sorted(history)[max(0, math.ceil(level * len(history)) - 1)])


PREDICTORS: dict[str, Predictor] = {
    "none": _none,
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
        """How many past lengths the predictor looks at."""
        return {"none": 0, "moving_average": RECENT}.get(self.predictor, WINDOW)

    def of(self, history: Sequence[int]) -> float:
        """Output tokens to charge in advance."""
        return self.share * PREDICTORS[self.predictor](history, self.level)
