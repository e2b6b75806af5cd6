"""The bounds on unfairness that Fairlane states for a pool as it is now. Pure.

The *certain* bound is known before any request comes. Only what is certain goes in: how many
replicas there are, how many grants each holds at most, the longest request its engine takes.
Nothing is assumed of estimates, of the replicas' memory or of their order inside
(`PoolLimits.ahead` and what follows stay unknown), so the bound is wide.

It is one for service received between any two moments (docs/theory.md) and holds for the
difference of two counters as well. With the lemmas there, m being the smallest counter at i's last
grant: since then `C_i` has grown by what was uncharged and by what is unearned, to at most
`m + Q / w_i + E / w`; and `C_j >= m - E / w - B`, as the proof of lemma 2 shows.

It is for requests of one sequence: one with `n` answers counts as n of them.

The *seen* bound is of the requests that did come (docs/theory.md, "By what has been seen"): no
lease was charged more than `largest`, no client or group held more than `most` at once, so the
counters of two that wait are no further apart than three times `most * largest` and the burst. The
queue keeps both numbers with a comparison or two a grant and report.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from fairness.bounds import PoolLimits, committed_tokens, paper_bound, service_bound
from fairness.observe.observation import ReplicaFacts
from fairness.store.contract import QueueSettings


class Bounds(NamedTuple):
    """stated: by what is certain. paper: 2U. None: not enough is known of the replicas."""

    stated: float | None = None
    paper: float | None = None


class Sizes(NamedTuple):
    """What the pool's queue has seen. largest: the largest charge of one lease, by the weight of
    any node that pays it. most: leases that one client or group held at once. servers: live
    replicas, as the burst counts them."""

    largest: float = 0.0
    most: int = 0
    servers: int = 0


def seen_bound(sizes: Sizes, burst: float) -> float | None:
    """Return how far apart the counters of two that wait can be, by what has been seen.

    burst: of each replica (`QueueSettings.burst`). None before anything was granted.
    """
    if not sizes.most:
        return None
    return 3 * sizes.most * sizes.largest + sizes.servers * burst


def bounds_of(
    replicas: Sequence[ReplicaFacts | None],
    settings: QueueSettings,
    lightest: float,
    prediction: float,
) -> Bounds:
    """Return both bounds.

    Args:
        replicas: what each live replica has told; the largest numbers count for all.
        lightest: the smallest weight among those compared.
        prediction: output tokens the pool expects of a request.
    """
    facts = [told for told in replicas if told is not None]
    if not facts or len(facts) < len(replicas):
        return Bounds()
    longest = max(told.longest for told in facts)
    window = max(told.slots + told.lookahead for told in facts)
    memory = max(
        committed_tokens(told.kv_tokens, told.slots, told.longest) if told.kv_tokens else math.inf
        for told in facts
    )
    share = settings.prediction.share
    expected = {"pool_average": prediction, "none": 0.0}
    limits = PoolLimits(
        replicas=len(facts),
        longest_input=longest,
        longest_output=longest,
        window=window,
        batch_tokens=memory if math.isfinite(memory) else None,
        reserved=share * min(longest, expected.get(settings.prediction.predictor, longest)),
        burst=settings.burst,
        cost=settings.cost,
    )
    paper = paper_bound(limits, lightest, lightest)
    return Bounds(
        service_bound(limits, lightest, lightest), paper if math.isfinite(paper) else None
    )
