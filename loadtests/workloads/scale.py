"""A workload for R replicas: R copies of it, of the same clients, that do not march in step.

With R times the requests and R times the servers a perfect cluster shares as one server does, so
R-fold numbers divided by R compare with those of one server. Each arrival is put off by its own
random time, else every request would have R - 1 twins at the same instant. A single copy is
jittered as well: averages of one run move by a tenth with the phase, so experiments take several
seeds at every R.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from loadtests.workloads.workload import Workload

JITTER_S = 5.0


def copies(workload: Workload, count: int, *, seed: int, jitter_s: float = JITTER_S) -> Workload:
    """Return ``count`` copies of a workload in one, each arrival up to ``jitter_s`` seconds later.

    The clients stay the same, so each sends ``count`` times as much. The same seed gives the same
    workload.

    Raises:
        ValueError: there is no copy, or the jitter is negative.
    """
    if count < 1 or jitter_s < 0:
        raise ValueError(f"need at least one copy and no negative jitter: {count}, {jitter_s} s")
    random = np.random.RandomState(seed)
    later = random.uniform(0.0, jitter_s, size=(count, len(workload.requests))).tolist()
    requests = [
        replace(request, at=request.at + delay)
        for delays in later
        for request, delay in zip(workload.requests, delays, strict=True)
    ]
    requests.sort(key=lambda request: request.at)
    return replace(workload, requests=tuple(requests))
