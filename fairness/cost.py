"""What tokens cost: the service function of VTC (OSDI 2024, section 3.1)."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServiceCost:
    """Service of a request: ``input_weight * input + output_weight * output`` tokens.

    The defaults are the paper's: an output token costs as much as two input tokens.

    Raises:
        ValueError: a weight is negative, not finite, or both are zero.
    """

    input_weight: float = 1.0
    output_weight: float = 2.0

    def __post_init__(self) -> None:
        weights = (self.input_weight, self.output_weight)
        if not all(math.isfinite(w) and w >= 0 for w in weights) or not any(weights):
            raise ValueError(
                "input_weight and output_weight must be finite, not negative and not both "
                f"zero; got {self.input_weight} and {self.output_weight}"
            )

    def of(self, input_tokens: float, output_tokens: float) -> float:
        """Return the service of this many tokens (fractions are fine: predictions)."""
        return self.input_weight * input_tokens + self.output_weight * output_tokens
