"""What tokens cost: the service function of VTC (OSDI 2024, section 3.1)."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServiceCost:
    """Service of a request: its tokens, each kind with its weight.

    The defaults are the paper's: an output token costs as much as two input tokens. Input tokens
    that the prefix cache provided cost ``cached_input_weight`` instead: nothing by default, for
    they cost the engine next to nothing; up to ``input_weight``, for who would rather have the
    price of a request not depend on what others asked before.

    Raises:
        ValueError: a weight is negative or not finite, input and output both cost nothing, or
            a cached token costs more than one that is not.
    """

    input_weight: float = 1.0
    output_weight: float = 2.0
    cached_input_weight: float = 0.0

    def __post_init__(self) -> None:
        weights = (self.input_weight, self.output_weight)
        if not all(math.isfinite(w) and w >= 0 for w in weights) or not any(weights):
            raise ValueError(
                "input_weight and output_weight must be finite, not negative and not both "
                f"zero; got {self.input_weight} and {self.output_weight}"
            )
        if not 0 <= self.cached_input_weight <= self.input_weight:
            raise ValueError(
                "cached_input_weight must lie between 0 and input_weight "
                f"({self.input_weight}), not at {self.cached_input_weight}"
            )

    def times(self, price: float) -> "ServiceCost":
        """Return the cost of what is so many times as dear."""
        return ServiceCost(
            price * self.input_weight, price * self.output_weight, price * self.cached_input_weight
        )

    def of(self, input_tokens: float, output_tokens: float, cached_tokens: float = 0) -> float:
        """Return the service of this many tokens (fractions are fine: predictions).

        ``cached_tokens`` are those of the input that came from the prefix cache.
        """
        return (
            self.input_weight * (input_tokens - cached_tokens)
            + self.cached_input_weight * cached_tokens
            + self.output_weight * output_tokens
        )
