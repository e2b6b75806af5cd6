"""How many replicas a backlog calls for."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.serve import autoscaling_policy
from ray.serve.config import AutoscalingConfig

from replicas.autoscaling import LARGE_SLACK, SLACK, ByBacklog, Work, replicas_wanted

SOME_WORK = st.lists(
    st.builds(
        Work.of,
        waiting=st.integers(0, 1_000),
        running=st.integers(0, 64),
        slots=st.integers(1, 64),
        kv_usage=st.floats(0, 1),
    ),
    min_size=1,
    max_size=8,
)


def context(reports: dict[str, Work], target: int = 3) -> SimpleNamespace:
    """What Serve shows a policy, as far as it is read."""
    names = ("waiting", "running", "fits")
    metrics = {
        name: {replica: work.stats()[name] for replica, work in reports.items()} for name in names
    }
    return SimpleNamespace(aggregated_metrics=metrics, target_num_replicas=target)


def test_idle_pools_shrink_to_one_and_a_backlog_is_worked_off_at_once():
    idle = Work.of(waiting=0, running=0, slots=16, kv_usage=0)
    assert replicas_wanted([idle, idle], 0.8) == 1
    busy = Work.of(waiting=90, running=16, slots=16, kv_usage=0.2)
    assert replicas_wanted([busy], 1.0) == 7  # 106 requests, 16 a replica


def test_the_queue_is_counted_once_however_many_tell_of_it():
    one = Work.of(waiting=32, running=0, slots=16, kv_usage=0)
    assert replicas_wanted([one] * 5, 1.0) == 2


def test_where_memory_runs_out_first_a_replica_holds_fewer():
    pressed = Work.of(waiting=10, running=10, slots=100, kv_usage=1.0)
    assert replicas_wanted([pressed], 1.0) == 2


@given(SOME_WORK, st.floats(0.1, 1))
def test_never_fewer_than_running_streams_need(work, target):
    full = sum(one.running / one.fits for one in work)  # batches
    wanted = replicas_wanted(work, target)
    assert wanted >= full * (1 - 1e-9)


def test_an_idle_replica_does_not_speak_for_the_full_ones():
    """Of 256 slots memory fills 25: that it holds 256, which is all that an idle one knows, would
    take away the one that has just come, again and again."""
    full = Work.of(waiting=0, running=24, slots=256, kv_usage=0.96)
    idle = Work.of(waiting=0, running=0, slots=256, kv_usage=0)
    assert replicas_wanted([full, idle], 0.8) == 2
    fifth = Work.of(waiting=0, running=5, slots=256, kv_usage=0.2)
    assert replicas_wanted([fifth] * 8, 0.8) == 2  # 1.6 batches


def test_nobody_has_reported_yet():
    assert replicas_wanted([], 0.8) is None
    assert ByBacklog()(context({}))[0] == 3


def test_a_replica_that_has_not_reported_everything_is_not_counted():
    ctx = context({"old": Work(20, 10, 10)})
    ctx.aggregated_metrics["waiting"]["new"] = 20.0
    assert ByBacklog(target=1.0)(ctx)[0] == 3  # (20 + 10) / 10


@pytest.mark.parametrize("target", [0, -1, 1.5])
def test_a_target_that_makes_no_sense(target):
    with pytest.raises(ValueError, match="target must be"):
        ByBacklog(target)


def test_serve_takes_it_as_a_policy():
    """By the name that the application gives, as Serve's controller loads it."""
    policy = {"policy_function": "replicas.autoscaling:ByBacklog", "policy_kwargs": {"target": 1.0}}
    loaded = AutoscalingConfig(policy=policy).policy.get_policy()
    assert loaded(target=1.0)(context({"a": Work(5, 5, 5)}, target=1))[0] == 2


@given(SOME_WORK, st.floats(0.1, 1), st.integers(1, 50))
def test_fewer_are_wanted_only_where_they_leave_room(work, target, now):
    reports = {str(number): one for number, one in enumerate(work)}
    wanted = ByBacklog(target)(context(reports, now))[0]
    if wanted < now:
        enough = replicas_wanted(work, target)
        assert wanted <= replicas_wanted(work, target * SLACK)
        assert wanted <= max(enough + 1, replicas_wanted(work, target * LARGE_SLACK))
        # What made it go down does not make it go up again.
        assert ByBacklog(target)(context(reports, wanted))[0] == wanted
    else:
        assert wanted == max(now, replicas_wanted(work, target))


class Autoscaler:
    """Serve's own, around the policy: what it makes of wishes."""

    def __init__(self, monkeypatch, replicas: int):
        self.now, self.replicas = 0.0, replicas
        self._state = {}
        self._policy = autoscaling_policy._apply_autoscaling_config(ByBacklog())
        self._config = AutoscalingConfig(
            min_replicas=1, max_replicas=8, upscale_delay_s=10, downscale_delay_s=300
        )
        monkeypatch.setattr(autoscaling_policy.time, "time", lambda: self.now)

    def decide(self, seconds: float, requests: int) -> int:
        """Look every second for so long, at replicas of 10 slots that share so many requests."""
        for _ in range(int(seconds)):
            self.now += 1
            each = Work(0.0, requests / self.replicas, 10.0)
            ctx = context({str(n): each for n in range(self.replicas)}, self.replicas)
            ctx.current_num_replicas, ctx.config = self.replicas, self._config
            ctx.policy_state, ctx.total_num_requests = self._state, 0
            self.replicas, self._state = self._policy(ctx)
        return self.replicas


def test_a_load_that_swings_moves_nothing(monkeypatch):
    scaler = Autoscaler(monkeypatch, 2)
    for _ in range(20):
        assert scaler.decide(9, 40) == 2  # a backlog for 5
        assert scaler.decide(200, 1) == 2  # nearly idle
    assert scaler.decide(30, 40) == 5  # this one lasts
    assert scaler.decide(299, 1) == 5
    assert scaler.decide(30, 1) == 1


def test_a_load_at_the_edge_does_not_have_a_replica_come_and_go(monkeypatch):
    scaler = Autoscaler(monkeypatch, 1)
    assert scaler.decide(30, 9) == 2  # 8 are what one is to have
    changes = {scaler.decide(400, requests) for requests in (8, 9, 8, 9)}
    assert changes == {2}
    assert scaler.decide(400, 7) == 2  # it may be 9 again, by chance
    assert scaler.decide(400, 6) == 1


def test_a_large_pool_keeps_a_tenth_and_a_small_one_a_quarter():
    def kept(replicas: int, running: int) -> int:
        each = Work(0.0, running / replicas, 10.0)
        reports = {str(number): each for number in range(replicas)}
        return ByBacklog()(context(reports, replicas))[0]

    assert kept(3, 15) == 3  # 2 would be 75% full
    assert kept(100, 640) == 89  # 80 would do, 107 would leave a quarter
