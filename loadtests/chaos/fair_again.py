"""How long a fault spoils fairness: seconds until two equal clients are served alike again.

Two clients of one weight want all they can get throughout. Fair from a moment t on means, until
the load ends:

- the gap in service accumulated *since t* stays under its bound, whatever it was before (what a
  fault cost one of them is not paid back, and need not be);
- in each window of five seconds after t both were served, and neither got more than its share.

The bound alone would be met by a pool that serves one of them for seconds on end; the windows alone
would miss a small tilt that never ends. **Seconds to fair again** is the earliest such t, counted
from the end of the fault. Time moves in steps of `STEP_S`, and a t with less than `JUDGED_S` left
before the end proves nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate

from fairness.measures import ServiceCurve

STEP_S = 0.25
WINDOW_S = 5.0
JUDGED_S = 10.0


@dataclass(frozen=True, slots=True)
class Fair:
    """What counts as fair: the largest gap in service, the largest share in a window."""

    gap: float
    share: float = 0.6


def seconds_to_fair(
    a: ServiceCurve, b: ServiceCurve, fault_end: float, load_end: float, fair: Fair
) -> float | None:
    """Return the seconds from ``fault_end`` until it was fair for good; None if never seen.

    ``a`` and ``b``: service of the two clients over time, in the same seconds as the two ends.
    """
    steps = math.floor((load_end - fault_end) / STEP_S + 1e-9)
    if steps < 0:
        return None
    served = [
        (a.at(fault_end + k * STEP_S), b.at(fault_end + k * STEP_S)) for k in range(steps + 1)
    ]
    gaps = [mine - yours for mine, yours in served]
    highest = list(accumulate(reversed(gaps), max))[::-1]
    lowest = list(accumulate(reversed(gaps), min))[::-1]
    window = round(WINDOW_S / STEP_S)
    for k in range(steps - round(JUDGED_S / STEP_S) + 1):
        if max(highest[k] - gaps[k], gaps[k] - lowest[k]) <= fair.gap and all(
            _shared(served[w], served[w + window], fair.share)
            for w in range(k, steps - window + 1, window)
        ):
            return k * STEP_S
    return None


def _shared(before: tuple[float, float], after: tuple[float, float], most: float) -> bool:
    mine, yours = after[0] - before[0], after[1] - before[1]
    return mine + yours > 0 and max(mine, yours) <= most * (mine + yours)
