"""What a job is charged, and when: at its admission, token by token, at its end.

A price may charge in advance and give back; in the end everyone has paid what the job cost (the
oracle's too: it only knows it sooner).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from fairness.cost import ServiceCost
from fairness.prediction import NO_AVERAGE, PoolAverage, Prediction
from loadtests.cost import PROFILED, Cost
from loadtests.simulator.job import Job


class Price(Protocol):
    """Service charged for a job; a client's counter gets it divided by the client's weight."""

    @property
    def per_token(self) -> float | None:
        """What every output token of every job costs, if they all cost the same; else None."""
        ...

    @property
    def surcharge(self) -> float:
        """For each job of a batch in which one has just ended: a quirk of the recorded server."""
        ...

    def admission(self, job: Job) -> float:
        """Charged when it enters the batch."""
        ...

    def tokens(self, job: Job, before: int, after: int) -> float:
        """Charged when its output grows from `before` to `after` tokens."""
        ...

    def ending(self, job: Job) -> float:
        """Charged when it has ended with `job.made` tokens; below 0: given back."""
        ...


@dataclass(frozen=True, slots=True)
class AsMade:
    """Input at the admission, output as it is made: VTC as the paper has it (algorithm 2).

    free_tokens: of the output are never charged; surcharge: see `Price`. The recorded server did
    not charge the first token, and one more for each job when one ended.
    """

    cost: ServiceCost = field(default_factory=ServiceCost)
    free_tokens: int = 0
    surcharge: float = 0.0

    @property
    def per_token(self) -> float | None:
        """The same for all, unless some are free."""
        return None if self.free_tokens else self.cost.output_weight

    def admission(self, job: Job) -> float:
        """The prompt."""
        return self.cost.of(job.prompt, 0)

    def tokens(self, job: Job, before: int, after: int) -> float:
        """The new tokens."""
        free = self.free_tokens
        return self.cost.of(0, max(after, free) - max(before, free))

    def ending(self, job: Job) -> float:
        """Nothing is left to pay."""
        return 0.0


class Predictor(Protocol):
    """Says how long a job's output will be, and sees how long it was."""

    def predict(self, job: Job) -> float:
        """Output tokens to charge in advance."""
        ...

    def learn(self, job: Job) -> None:
        """It made `job.made` tokens."""
        ...


@dataclass(slots=True)
class InAdvance:
    """VTC with length prediction (paper, section 4.4): input and predicted output at admission.

    While the job makes fewer tokens it pays no more; beyond them it pays as it goes; what it did
    not make is given back.
    """

    predictor: Predictor
    cost: ServiceCost = field(default_factory=ServiceCost)
    surcharge: float = 0.0
    per_token: float | None = None
    _predicted: dict[Job, float] = field(default_factory=dict)

    def admission(self, job: Job) -> float:
        """The prompt and the predicted output."""
        predicted = self._predicted[job] = self.predictor.predict(job)
        return self.cost.of(job.prompt, predicted)

    def tokens(self, job: Job, before: int, after: int) -> float:
        """What is beyond the prediction."""
        predicted = self._predicted[job]
        return self.cost.of(0, max(after, predicted) - max(before, predicted))

    def ending(self, job: Job) -> float:
        """What was predicted and not made, given back."""
        unused = max(0.0, self._predicted.pop(job) - job.made)
        self.predictor.learn(job)
        return -self.cost.of(0, unused)


@dataclass(slots=True)
class FromHistory:
    """The product's predictors: from a client's last outputs, or the pool's average."""

    prediction: Prediction
    _outputs: dict[str, list[int]] = field(default_factory=dict)
    _average: PoolAverage = NO_AVERAGE

    def predict(self, job: Job) -> float:
        """See `fairness.prediction`."""
        return self.prediction.of(self._outputs.get(job.client, ()), self._average)

    def learn(self, job: Job) -> None:
        """Remember as many as the predictor looks at."""
        self._average = self._average.after(job.made)
        outputs = self._outputs.setdefault(job.client, [])
        outputs.append(job.made)
        del outputs[: -self.prediction.window or len(outputs)]


@dataclass(frozen=True, slots=True)
class Oracle:
    """Knows the length, or a part of it. noise: what to multiply it by."""

    noise: Callable[[], float] = lambda: 1.0

    def predict(self, job: Job) -> float:
        """The truth."""
        return job.output * self.noise()

    def learn(self, job: Job) -> None:
        """There is nothing it does not know."""


def within_half(random: Random) -> Oracle:
    """The paper's noisy oracle: uniform within 50% of the truth."""
    return Oracle(lambda: random.uniform(0.5, 1.5))


@dataclass(frozen=True, slots=True)
class Profiled:
    """VTC with the paper's profiled cost function (`loadtests.cost`)."""

    cost: Cost = PROFILED
    surcharge: float = 0.0
    per_token: float | None = None

    def admission(self, job: Job) -> float:
        """The prompt."""
        return self.cost.of(job.prompt, 0)

    def tokens(self, job: Job, before: int, after: int) -> float:
        """The difference that the new tokens make."""
        return self.cost.of(job.prompt, after) - self.cost.of(job.prompt, before)

    def ending(self, job: Job) -> float:
        """Nothing is left to pay."""
        return 0.0
