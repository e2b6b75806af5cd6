"""What service is measured by: weighted tokens, as nearly everywhere, or a profile of a machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Cost(Protocol):
    """Service of a request; `fairness.cost.ServiceCost` is one."""

    def of(self, input_tokens: float, output_tokens: float, /) -> float:
        """Return the service of this many tokens."""
        ...


@dataclass(frozen=True, slots=True)
class ProfiledCost:
    """Milliseconds that a request takes of the recorded A10G: the VTC paper's profiled cost.

    A quadratic fit to measured times (Sheng et al., OSDI 2024, appendix B.2). With x input and y
    output tokens, the paper prints ten times this: 2.1 x + y + 0.04 x y + 0.032 y^2 + 11.46; the
    digits here are those of its artifact, which its tables 3 and 4 were computed with.
    """

    def of(self, input_tokens: float, output_tokens: float, /) -> float:
        """Return the milliseconds of this many tokens, all of them in one request."""
        x, y = input_tokens, output_tokens
        linear = 1.14601454 + 0.21001891 * x + 0.10075395 * y
        return linear + 0.0039868 * x * y + 0.00324733 * y * y


PROFILED = ProfiledCost()
