"""Priority classes in the batch: vLLM's scheduler with fake model outputs."""

import pytest

from loadtests.fake_engine import FakeEngine
from replicas.scheduler import FairScheduler, read_settings

FLOOR = 0.1
SETTINGS = {"classes": [["high", 0], ["low", FLOOR]], "hold_back": 0}


def engine(**kwargs) -> FakeEngine:
    settings = SETTINGS | kwargs.pop("settings", {})
    return FakeEngine(FairScheduler, settings=settings, **kwargs)


def send(to: FakeEngine, name: str, client: str = "", **details) -> str:
    return to.send(client or name, groups=[(f"class:{name}/", 1.0, None)], **details)


def classes_of(requests: list[str]) -> list[str]:
    return [request.rpartition("-")[0] for request in requests]


def test_a_higher_class_goes_first_whoever_came_first():
    one = engine(slots=2, settings={"classes": [["high", 0], ["low", 0]]})
    for name in ("low", "high") * 4:
        send(one, name)
    one.run()
    assert classes_of(one.admission_order()) == ["high"] * 4 + ["low"] * 4


@pytest.mark.parametrize("run_ahead", [False, True])
def test_the_lower_class_gets_its_floor_of_the_service_and_no_more(run_ahead):
    one = engine(slots=4, run_ahead=run_ahead)
    for _ in range(1_000):
        send(one, "high")
        send(one, "low")
    for _ in range(1_000):
        one.step()
    charged = {name: one.scheduler._counters.charged(name) for name in ("high", "low")}
    assert charged["low"] / sum(charged.values()) == pytest.approx(FLOOR, abs=0.02)


def test_nothing_is_idle_while_only_the_lower_class_waits_and_it_costs_nothing_later():
    one = engine(slots=2)
    for _ in range(60):
        send(one, "low")
    for _ in range(100):
        assert len(one.step().num_scheduled_tokens) == 2
    done = len(one.admission_order())
    for _ in range(100):
        send(one, "high")
    for _ in range(200):
        one.step()
    later = classes_of(one.admission_order()[done:])
    assert 0.05 < later.count("low") / len(later) < 0.15


def test_within_a_class_the_client_served_least_goes_first():
    one = engine(slots=1)
    for _ in range(5):
        send(one, "high", "flood")
    send(one, "high", "modest")
    one.run()
    assert classes_of(one.admission_order())[:3] == ["flood", "modest", "flood"]


def test_who_comes_without_a_class_is_in_the_first():
    one = engine(slots=1, settings={"classes": [["high", 0], ["low", 0]]})
    send(one, "low")
    one.send("stranger")
    one.send(None)
    one.step()
    assert one.scheduler._counters.group_of("stranger") == "class:high/"
    one.run()
    assert classes_of(one.admission_order())[-1] == "low"


def test_memory_is_taken_from_the_lower_class_first():
    one = engine(slots=4, blocks=24, settings={"classes": [["high", 0], ["low", 0]]})
    send(one, "low", prompt=32, output=200)
    send(one, "low", prompt=32, output=200)
    for _ in range(3):
        one.step()
    send(one, "high", prompt=32, output=200)
    send(one, "high", prompt=32, output=200)
    preempted = []
    while one.scheduler.has_unfinished_requests() and len(one.finished) < 2:
        one.step()
        preempted += [r for r in one.requests.values() if r.num_preemptions]
    assert preempted, "memory ran out"
    assert {request.request_id.rpartition("-")[0] for request in preempted} == {"low"}


def test_a_class_that_is_owed_keeps_its_memory():
    """What it was admitted to for its floor is not taken from it at once."""
    counters = engine(slots=4).scheduler._counters
    turns = counters._turns
    assert turns.key("class:high/") < turns.key("class:low/")
    turns.owed["class:low/"] = 5.0
    assert turns.key("class:low/") < turns.key("class:high/")


def test_settings_without_sense_are_refused():
    with pytest.raises(ValueError, match="add up to 1"):
        read_settings({"fairlane": {"classes": [["a", 0], ["b", 0.6], ["c", 0.5]]}})
