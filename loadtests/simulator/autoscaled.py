"""Fairlane whose replicas come and go, as Ray Serve's controller has them.

The policy is the product's (`replicas.autoscaling.ByBacklog`), fed with what replicas report; what
Serve does around a policy (factors, delays) is Serve's own code on the simulated clock. Ours is the
rest of its controller: when reports are made and averaged, that a new replica takes minutes to
start, and that one which is to go is drained first, those still starting before those that serve.

A GPU is paid for from the decision to start its replica until the replica is gone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from deployments.config import PoolConfig
from loadtests.simulator.fairlane import Fairlane
from loadtests.simulator.replica import Replica
from loadtests.simulator.settings import FairlaneSettings
from loadtests.simulator.systems import Front, Site, System
from replicas.autoscaling import ByBacklog, Work

TICK_S = 1.0
"""Between two looks of the controller. (Serve's own period is shorter; its delays are seconds.)"""
LOOK_S = 60.0

Policy = Callable[[Any], tuple[int, dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Scaling:
    """Serve's `autoscaling_config` and the time that a start takes. Seconds.

    The pool begins with min_replicas. start_s: from the decision until the first offer (a node,
    the image, the weights). drain_s: `pools[].drain_s`, how long a leaving replica's streams may
    take.
    """

    min_replicas: int = 1
    max_replicas: int = 8
    upscale_delay_s: float = 10.0
    downscale_delay_s: float = 300.0
    look_back_period_s: float = 10.0
    metrics_interval_s: float = 5.0
    start_s: float = 180.0
    drain_s: float = PoolConfig.model_fields["drain_s"].default
    policy: Policy = field(default_factory=ByBacklog)

    @classmethod
    def fixed(cls, replicas: int) -> Scaling:
        """So many replicas all the time."""
        return cls(min_replicas=replicas, max_replicas=replicas)

    def serves(self) -> Any:
        """As Serve has it; it checks the numbers, too."""
        from ray.serve.config import AutoscalingConfig

        return AutoscalingConfig(
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
            upscale_delay_s=self.upscale_delay_s,
            downscale_delay_s=self.downscale_delay_s,
            look_back_period_s=self.look_back_period_s,
            metrics_interval_s=self.metrics_interval_s,
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """The target changed."""

    at: float
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Look:
    """The pool at one moment. paid: GPUs, those of starting and draining replicas included."""

    at: float
    target: int
    serving: int
    paid: int
    waiting: int
    running: int


@dataclass(slots=True)
class Log:
    """What happened. gpu_s: GPU seconds paid. cut: requests still open on leaving replicas after
    `drain_s`."""

    decisions: list[Decision] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    gpu_s: float = 0.0
    cut: int = 0


class _Member:
    """A replica that serves, and its reports."""

    def __init__(self, replica: Replica, scaling: Scaling, now: float) -> None:
        self.replica = replica
        self._push_s = scaling.metrics_interval_s
        self._sample_s = min(0.2 * scaling.look_back_period_s, scaling.metrics_interval_s)
        self._samples: deque[Work] = deque(
            maxlen=max(1, round(scaling.look_back_period_s / self._sample_s))
        )
        self._next_sample = now + self._sample_s
        self._next_push = now + self._push_s
        self.report: Work | None = None

    def look(self, now: float) -> None:
        """Note its state, and report the average over the look-back period, when each is due."""
        if now >= self._next_sample:
            self._next_sample += self._sample_s
            self._samples.append(self.replica.work)
        if now >= self._next_push and self._samples:
            self._next_push += self._push_s
            self.report = _mean(self._samples)


def _mean(samples: deque[Work]) -> Work:
    count = len(samples)
    return Work(
        sum(work.waiting for work in samples) / count,
        sum(work.running for work in samples) / count,
        sum(work.fits for work in samples) / count,
    )


class Autoscaled(Fairlane):
    """The whole system, and the controller."""

    def __init__(self, site: Site, settings: FairlaneSettings, scaling: Scaling, log: Log) -> None:
        super().__init__(site, settings)
        self._clock = site.clock
        self._scaling = scaling
        self._config = scaling.serves()
        self._log = log
        self._target = site.replicas
        self._members = [_Member(r, scaling, 0.0) for r in self._replicas.values()]
        self._starting: dict[int, float] = {}  # number: when it is ready
        self._starts = 0
        self._draining: set[Replica] = set()
        self._state: dict[str, Any] = {}
        self._next_look = 0.0
        self._tick()

    def _tick(self) -> None:
        now = self._clock.now
        for number, ready in list(self._starting.items()):
            if now >= ready:
                del self._starting[number]
                self._members.append(_Member(self._add_replica(), self._scaling, now))
        for member in self._members:
            member.look(now)
        self._decide(now)
        paid = len(self._members) + len(self._starting) + len(self._draining)
        self._log.gpu_s += paid * TICK_S
        if now >= self._next_look:
            self._next_look += LOOK_S
            works = [member.replica.work for member in self._members]
            waiting = max(int(work.waiting) for work in works)
            running = sum(int(work.running) for work in works)
            self._log.looks.append(Look(now, self._target, len(works), paid, waiting, running))
        self._clock.after(TICK_S, self._tick)

    def _decide(self, now: float) -> None:
        from ray.serve.autoscaling_policy import _apply_delay_logic, _apply_scaling_factors

        if self._config.min_replicas == self._config.max_replicas:
            return
        reports = {m.replica.name: m.report for m in self._members if m.report is not None}
        context = SimpleNamespace(
            aggregated_metrics={
                name: {replica: work.stats()[name] for replica, work in reports.items()}
                for name in ("waiting", "running", "fits")
            },
            target_num_replicas=self._target,
            current_num_replicas=len(self._members),
            config=self._config,
        )
        wanted, _ = self._scaling.policy(context)
        wanted = _apply_scaling_factors(wanted, len(self._members), self._config)
        target, self._state = _apply_delay_logic(
            wanted, self._target, self._config, self._state, _now=now
        )
        target = max(self._config.min_replicas, min(self._config.max_replicas, target))
        if target != self._target:
            self._log.decisions.append(Decision(now, self._target, target))
            self._target = target
            self._follow(now)

    def _follow(self, now: float) -> None:
        """Start or end replicas until there are as many as wanted."""
        while len(self._members) + len(self._starting) < self._target:
            self._starting[self._starts] = now + self._scaling.start_s
            self._starts += 1
        while len(self._members) + len(self._starting) > self._target:
            if self._starting:
                self._starting.popitem()
            else:
                self._end(self._members.pop().replica)

    def _end(self, replica: Replica) -> None:
        self._draining.add(replica)

        def cut() -> None:
            if replica in self._draining:
                self._log.cut += int(replica.work.running)

        self._clock.after(self._scaling.drain_s, cut)
        replica.drain(lambda: self._draining.remove(replica))


def autoscaled(settings: FairlaneSettings, scaling: Scaling, log: Log) -> System:
    """Fairlane with replicas that come and go, as a system to simulate; `log` is filled."""

    def build(site: Site) -> Front:
        return Autoscaled(site, settings, scaling, log)

    return build
