"""How many replicas a pool needs: by the work that waits and runs, not by Serve's own counts.

Tokens bypass Ray's handles, so Serve counts no requests on these replicas, and its default policy
would scale every pool to its minimum. Instead each replica reports what it knows anyway (`Work`,
through Serve's `record_autoscaling_stats`), and `ByBacklog` runs in Serve's controller.

The rule: enough replicas that what waits in the global queue and what runs would fill a share
(``target``) of their batches. So none is taken away that running streams need, and a backlog calls
for as many as would work it off at once. Fewer are wanted only where that leaves some room: at the
edge between two numbers a load that stirs a little would have an engine come and go. It stirs more
where it is small (by the root of the requests that run), so a small pool is left a quarter
(`SLACK`), a large one a tenth. How many requests fill a batch is not known in advance: memory may
run out before the slots do. A replica tells by how much of its KV cache its requests take; without
any, its slots count. What waits is taken to be like what runs.

Serve does the rest: it averages reports over ``look_back_period_s``, waits ``upscale_delay_s`` and
``downscale_delay_s`` of unbroken wish before it acts, and keeps between ``min_replicas`` and
``max_replicas``. A replica that leaves is drained first (`replicas.server`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

SLACK = 0.75  # of the target: how full fewer replicas may be...
LARGE_SLACK = 0.9  # ...or this, where it comes to more than one replica


@dataclass(frozen=True, slots=True)
class Work:
    """What one replica reports.

    waiting: requests in the global queue of its pool. running: requests handed to this replica and
    not over. fits: requests that fill its batch, as far as it can tell.
    """

    waiting: float
    running: float
    fits: float

    @classmethod
    def of(cls, *, waiting: int, running: int, slots: int, kv_usage: float) -> Work:
        """Note the state of a replica. kv_usage: of its KV cache, 0 to 1."""
        fits = float(slots)
        if running and kv_usage > 0:
            fits = min(fits, running / kv_usage)
        return cls(float(waiting), float(running), fits)

    def stats(self) -> dict[str, float]:
        """As Serve carries it."""
        return asdict(self)


def replicas_wanted(work: Iterable[Work], target: float) -> int | None:
    """Return how many replicas would be ``target`` full with all that waits and runs; None while no
    replica has reported. 1 at least."""
    reports = list(work)
    if not reports:
        return None
    # Each tells of the whole pool's queue, as of its last heartbeat.
    waiting = max(report.waiting for report in reports)
    running = sum(report.running for report in reports)
    # What a request takes is known from those that run: an idle replica tells of its slots only,
    # and must not speak for the full ones.
    full = sum(report.running / report.fits for report in reports)
    slots = sum(report.fits for report in reports) / len(reports)
    each = full / running if running else 1 / slots
    return max(1, math.ceil((full + waiting * each) / target - 1e-9))


class ByBacklog:
    """Serve's custom autoscaling policy; `policy_kwargs` are its arguments."""

    def __init__(self, target: float = 0.8) -> None:
        """target: the share of their batches that replicas should have in use, above 0 to 1.

        Raises ValueError for another.
        """
        if not 0 < target <= 1:
            raise ValueError(f"target must be above 0 and at most 1, not {target}")
        self._target = target

    def __call__(self, ctx: Any) -> tuple[int, dict[str, Any]]:
        """Return the number of replicas wanted, as Serve asks (`AutoscalingContext`)."""
        work, now = _reports(ctx.aggregated_metrics or {}), ctx.target_num_replicas
        wanted = replicas_wanted(work, self._target)
        roomy = replicas_wanted(work, self._target * SLACK)
        large = replicas_wanted(work, self._target * LARGE_SLACK)
        if wanted is None or roomy is None or large is None:
            return now, {}
        fewer = min(roomy, max(wanted + 1, large))
        return wanted if wanted >= now else min(now, fewer), {}


def _reports(metrics: Mapping[str, Mapping[Any, float]]) -> list[Work]:
    """Of the replicas that have reported everything. metrics: name -> replica -> value."""
    columns = [metrics.get(name, {}) for name in ("waiting", "running", "fits")]
    replicas = set(columns[0]).intersection(*columns[1:])
    return [Work(*(column[replica] for column in columns)) for replica in replicas]
