"""What an admission must leave free for those who run (rule 6 of the scheduler)."""

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.request import Request

from loadtests.fake_engine import BLOCK, FakeEngine
from replicas.scheduler import HOLD_BACK, FairScheduler


def fair(hold_back: int = HOLD_BACK, policy: str = "vtc", **kwargs) -> FakeEngine:
    settings = {"hold_back": hold_back, "policy": policy}
    return FakeEngine(FairScheduler, settings=settings, **kwargs)


def stock(**kwargs) -> FakeEngine:
    return FakeEngine(AsyncScheduler, **kwargs)


@dataclass(frozen=True)
class Load:
    """Requests of random clients, all sent at once; lengths vary by half."""

    clients: int
    requests: int
    prompt: int
    output: int
    seed: int = 0

    def send(self, engine: FakeEngine) -> None:
        rng = random.Random(self.seed)

        def about(tokens: int) -> int:
            return rng.randint(tokens - tokens // 2, tokens + tokens // 2)

        for _ in range(self.requests):
            client = f"c{rng.randrange(self.clients)}"
            engine.send(client, prompt=about(self.prompt), output=about(self.output))

    def run(self, engine: FakeEngine) -> int:
        """Run it all; return how many tokens were computed."""
        self.send(engine)
        computed = 0
        while engine.scheduler.has_unfinished_requests():
            computed += engine.step().total_num_scheduled_tokens
        assert len(engine.finished) == self.requests
        return computed


def free(engine: FakeEngine) -> int:
    return engine.scheduler.kv_cache_manager.block_pool.get_num_free_blocks()


@pytest.mark.parametrize("policy", ["vtc", "fcfs"])
@pytest.mark.parametrize(
    ("load", "blocks", "batch_tokens"),
    [
        (Load(3, 90, prompt=64, output=96), 61, 2048),
        (Load(60, 90, prompt=64, output=96), 61, 2048),
        (Load(3, 60, prompt=64, output=250), 91, 2048),
        (Load(3, 60, prompt=250, output=64), 91, 128),
    ],
    ids=["few clients", "many clients", "long answers", "chunked prompts"],
)
def test_less_is_computed_anew_than_in_stock(load, blocks, batch_tokens, policy):
    scarce = {"slots": 16, "blocks": blocks, "batch_tokens": batch_tokens}
    ours, theirs, eager = fair(policy=policy, **scarce), stock(**scarce), fair(0, policy, **scarce)
    computed = load.run(ours)
    assert computed < load.run(theirs)
    assert computed < load.run(eager)
    assert ours.texts == theirs.texts
    assert ours.steps < 1.08 * theirs.steps


@settings(max_examples=40)
@given(
    load=st.builds(
        Load,
        clients=st.integers(1, 5),
        requests=st.integers(1, 25),
        prompt=st.integers(2, 150),
        output=st.integers(2, 100),
        seed=st.integers(0, 1_000),
    ),
    hold_back=st.sampled_from([1, HOLD_BACK, 100, 1_000_000]),
    policy=st.sampled_from(["vtc", "fcfs"]),
    blocks=st.integers(13, 40),
    batch_tokens=st.sampled_from([64, 2048]),
)
def test_who_fits_beside_what_is_held_back_is_admitted_and_nobody_else(
    load, hold_back, policy, blocks, batch_tokens
):
    engine = fair(hold_back, policy, slots=6, blocks=blocks, batch_tokens=batch_tokens)
    scheduler = engine.scheduler
    looked_at: list[Request] = []
    peek = scheduler.waiting.peek_request

    def noted_peek() -> Request:
        looked_at[:] = [peek()]
        return looked_at[0]

    scheduler.waiting.peek_request = noted_peek
    load.send(engine)
    while scheduler.has_unfinished_requests():
        looked_at.clear()
        before, ran = engine.exchange()["preemptions"], list(scheduler.running)
        scheduled = engine.step().num_scheduled_tokens
        assert scheduled, "nothing is held back where nothing runs"
        held_back = scheduler.kv_cache_manager.watermark_blocks
        assert held_back <= -(-hold_back * 6 // BLOCK)
        admitted = scheduled.keys() - {request.request_id for request in ran}
        if admitted and ran:
            assert free(engine) >= held_back
        refused = looked_at and looked_at[0] not in scheduler.running
        ended = any(step == engine.steps for step, _ in engine.finished)
        full = len(scheduler.running) == 6 or sum(scheduled.values()) == batch_tokens
        preempted = engine.exchange()["preemptions"] > before
        if refused and not (full or preempted or ended):
            assert free(engine) < held_back + -(-looked_at[0].num_tokens // BLOCK)
    assert len(engine.finished) == load.requests


@pytest.mark.parametrize(("counter", "admitted"), [(1.0, True), (10_000.0, False)])
def test_nothing_is_held_back_from_a_client_that_is_far_behind(counter, admitted):
    engine = fair(hold_back=200, slots=4, blocks=1 + 12, batch_tokens=128)
    engine.send("served", prompt=2 * BLOCK, output=60, counter=10_000.0)
    engine.send("served", prompt=2 * BLOCK, output=60)
    engine.step()
    newcomer = engine.send("newcomer", prompt=2 * BLOCK, output=4, counter=counter)
    engine.step()
    assert (newcomer in engine.admission_order()) == admitted
    engine.run()
    assert len(engine.finished) == 3


def test_vllms_own_watermark_is_the_least_that_is_held_back():
    engine = fair(hold_back=0, slots=4, blocks=1 + 12)
    scheduler = engine.scheduler
    assert scheduler.kv_cache_manager.watermark_blocks == 0
    scheduler._least_held_back = 7
    engine.send("a", prompt=BLOCK, output=5)
    engine.step()
    assert scheduler._blocks_held_back() == 7


def test_what_is_held_back_is_not_said_to_fit():
    engine = fair(hold_back=3 * BLOCK, slots=8, blocks=21)
    for _ in range(2):
        engine.send("a", prompt=BLOCK * 3 - 1, output=BLOCK)
    engine.step()
    engine.step()
    assert engine.exchange()["fits"] == (20 - 2 * 3 - 2 * 3) // 3
