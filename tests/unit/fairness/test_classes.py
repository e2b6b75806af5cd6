"""Priority classes: strict order and floors, against the bounds of docs/theory.md."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairness.classes import Classes, ClassTurns, ServiceClass, class_group, split_class
from fairness.groups import ROOT, Group
from fairness.store.contract import Call, Grant, QueueSettings, Sender, Usage
from fairness.store.memory_store import MemoryPool

ROUTER, REPLICA = Sender("router", "router"), Sender("replica", "replica")
NAMES = ("high", "mid", "low")


def classes(*floors: float) -> Classes:
    return Classes(
        tuple(ServiceClass(name, floor) for name, floor in zip(NAMES, floors, strict=False))
    )


class Pool:
    """The queue in memory: requests of fixed costs, `slots` at once, charged bit by bit."""

    def __init__(self, settled: Classes, slots: int = 1) -> None:
        self.now = 1_000
        settings = QueueSettings(classes=settled)
        self.pool = MemoryPool(settings, lambda: self.now, lambda _, grants: self._heed(grants))
        self.classes = settled
        self.slots = slots
        self.costs: dict[str, int] = {}
        self.running: dict[str, int] = {}  # lease -> output tokens so far
        self.granted: list[str] = []  # classes, in order
        self.waiting: dict[str, int] = dict.fromkeys(NAMES, 0)
        self.served: dict[str, float] = dict.fromkeys(NAMES, 0.0)
        self.arrived = 0

    def submit(self, name: str, output: int, client: str = "") -> None:
        call, request = Call(), f"{name}-{len(self.costs)}"
        self.costs[request] = output
        groups = self.classes.put(name, ())
        call.submit(request, client or f"of {name}", 1.0, 0, groups=groups)
        self.waiting[name] += 1
        self._heed(self.pool.apply(ROUTER, call).grants)

    def step(self, tokens: int) -> None:
        """Each running request makes so many tokens, or its last; then free slots are offered."""
        call = Call()
        for lease, made in list(self.running.items()):
            request, _, _ = lease.rpartition(".")
            now = min(self.costs[request], made + tokens)
            self.served[request.partition("-")[0]] += 2.0 * (now - made)
            if now == self.costs[request]:
                del self.running[lease]
                call.settle(lease, Usage(0, 0, now))
            else:
                self.running[lease] = now
                call.charge(lease, Usage(0, 0, now))
        self.now += 1
        limit = self.arrived + self.slots - len(self.running)
        call.offer("url", limit, self.arrived, self.now, 100)
        self.pool.apply(ROUTER, Call())  # it lives
        self.pool.apply(REPLICA, call)

    def _heed(self, grants: tuple[Grant, ...]) -> None:
        for grant in grants:
            name = grant.request.partition("-")[0]
            self.granted.append(name)
            self.waiting[name] -= 1
            self.arrived += 1
            self.running[grant.lease] = 0


def test_without_floors_a_higher_class_goes_first_and_a_lower_one_may_starve():
    line = Pool(classes(0, 0, 0))
    for name in ("low", "mid", "high") * 5:
        line.submit(name, 10)
    for _ in range(20):
        line.step(10)
    assert line.granted == ["high"] * 5 + ["mid"] * 5 + ["low"] * 5


def test_a_floor_is_kept_and_no_more_than_kept():
    line = Pool(classes(0, 0.1))
    for _ in range(400):
        line.submit("high", 10)
        line.submit("mid", 10)
    for _ in range(300):
        line.step(10)
    share = line.granted.count("mid") / len(line.granted)
    assert share == pytest.approx(0.1, abs=0.01)


def test_large_requests_of_a_low_class_get_no_more_than_its_floor():
    """Each costs a hundred times what one of the high class does."""
    line = Pool(classes(0, 0.05))
    for _ in range(4_000):
        line.submit("high", 2)
    for _ in range(40):
        line.submit("mid", 200)
    for _ in range(2_500):
        line.step(200)
    total = sum(line.served.values())
    assert line.served["mid"] == pytest.approx(0.05 * total, abs=400)


def test_one_request_at_a_time_gets_no_more_than_the_floor_either():
    """What a class had in excess is not forgotten because nothing of it waits for a moment."""
    line = Pool(classes(0, 0.05), slots=4)
    for _ in range(4_500):
        line.submit("high", 10)
    for _ in range(2_000):
        mine = any(lease.startswith("mid") for lease in line.running)
        if not mine and not line.waiting["mid"]:
            line.submit("mid", 10)
        line.step(5)
    assert line.waiting["high"] > 0
    share = line.served["mid"] / sum(line.served.values())
    assert 0.03 < share < 0.06  # one of four slots would be 0.25


def test_what_a_class_took_while_it_was_alone_costs_it_nothing_later():
    line = Pool(classes(0, 0.1))
    for _ in range(500):
        line.submit("mid", 10)
    for _ in range(300):
        line.step(10)
    for _ in range(200):
        line.submit("high", 10)
    before = len(line.granted)
    for _ in range(100):
        line.step(10)
    assert 8 <= line.granted[before:].count("mid") <= 11


def test_idle_time_is_not_saved_up():
    line = Pool(classes(0, 0.1))
    for _ in range(300):
        line.submit("high", 10)
    for _ in range(100):
        line.step(10)
    for _ in range(50):
        line.submit("mid", 10)
    before = len(line.granted)
    for _ in range(30):
        line.step(10)
    assert line.granted[before:].count("mid") <= 4


def test_within_a_class_vtc_decides():
    line = Pool(classes(0, 0.1))
    for _ in range(40):
        line.submit("high", 10, client="flood")
    line.submit("high", 10, client="modest")
    for _ in range(4):
        line.step(10)
    assert line.pool._tree.clients["modest"].waiting == 0


@given(
    st.integers(0, 2**32),
    st.lists(st.sampled_from([0.0, 0.02, 0.1, 0.3]), min_size=2, max_size=2),
    st.integers(1, 6),
)
def test_over_random_histories_floors_and_priorities_hold_within_the_bound(seed, floors, slots):
    """Requests come and go at random; every interval in which a class waits throughout is looked
    at, by the largest rise of what it is behind."""
    rng = random.Random(seed)
    settled = classes(0.0, *floors)
    line = Pool(settled, slots)
    longest = 40
    largest = 2.0 * longest
    open_ = (slots + 1) * largest  # all that leases can have coming, and the newest
    bound = class_bound(len(settled.classes) - 1, sum(floors), largest, 2 * open_) + open_
    behind: dict[str, tuple[float, float]] = {}
    for _ in range(250):
        for name in NAMES:
            if rng.random() < 0.25:
                for _ in range(rng.randint(0, 4)):
                    line.submit(name, rng.randint(1, longest))
        line.step(rng.randint(1, 15))
        total = sum(line.served.values())
        assert not any(line.waiting.values()) or len(line.running) == slots, "work is conserved"
        for rank, name in enumerate(NAMES):
            owed = settled.floors[class_group(name)] * total - line.served[name]
            contested = any(line.waiting[other] for other in NAMES[:rank])
            for kind, holds in ((name, line.waiting[name] > 0), (f"over {name}", contested)):
                if not holds:
                    behind.pop(kind, None)
                    continue
                least, most = behind.get(kind, (owed, owed))
                if kind == name:  # it may fall behind by so much since its best moment
                    behind[kind] = least, most = min(least, owed), owed
                    assert owed - least <= bound
                else:  # and be ahead by so much since its worst
                    behind[kind] = least, most = owed, max(most, owed)
                    assert most - owed <= bound


def class_bound(count: int, floors: float, largest: float, open_: float) -> float:
    """C of docs/theory.md: U is `largest`, D is `open_`."""
    return (count + 1) * floors * largest + (2 * count + 1) * open_


def test_control_a_rule_without_debts_gives_small_requests_turn_about():
    """Were a class never in debt, its large requests would alternate with small ones."""
    waiting = {class_group("high"), class_group("mid")}
    turns, served = ClassTurns(classes(0, 0.05), waiting.__contains__), {"high": 0, "mid": 0}
    for _ in range(1_000):
        chosen = turns.first(waiting.__contains__)
        name, _ = split_class(chosen)
        turns.serve(chosen)
        turns.charge(chosen, cost := 1_000 if name == "mid" else 10)
        turns.owed[class_group("mid")] = max(0.0, turns.owed[class_group("mid")])
        served[name] += cost
    assert served["mid"] > 0.9 * sum(served.values())


def test_who_is_in_no_class_that_there_is_is_in_the_first():
    settled = classes(0, 0.1)
    acme, team = Group("acme/", 2.0), Group("acme/ml/")
    high, low = Group("class:high/"), Group("class:mid/")
    inside = (high, Group("class:high/acme/", 2.0), Group("class:high/acme/ml/"))
    assert settled.place(()) == (high,)
    assert settled.place((acme, team)) == inside
    assert settled.place(inside) == inside
    assert settled.put("mid", (acme,)) == (low, Group("class:mid/acme/", 2.0))
    former = (Group("class:old/"), Group("class:old/acme/", 2.0), Group("class:old/acme/ml/"))
    assert settled.place(former) == inside
    assert settled.put("gone", (acme, team)) == inside
    assert Classes().place(former) == former
    assert Classes().put("mid", (acme,)) == (acme,)
    assert split_class("class:old/acme/ml/") == ("old", "acme/ml/")
    assert split_class("acme/") == ("", "acme/")
    assert not ClassTurns(Classes(), lambda group: True).first(lambda group: True)
    assert ROOT not in ClassTurns(settled, lambda group: True)


@pytest.mark.parametrize(
    ("floors", "why"),
    [
        ((0, 0.6, 0.4), "add up to 1"),
        ((0, -0.1), "0 or more"),
        ((0, 1.0), "below 1"),
        ((0.1, 0.1), "goes first"),
        ((0, float("nan")), "0 or more"),
    ],
)
def test_floors_that_make_no_sense_are_refused(floors, why):
    with pytest.raises(ValueError, match=why):
        classes(*floors)


def test_a_class_twice_or_too_many_are_refused():
    with pytest.raises(ValueError, match="twice"):
        Classes((ServiceClass("a"), ServiceClass("a")))
    with pytest.raises(ValueError, match="8 classes, not 9"):
        Classes(tuple(ServiceClass(str(n)) for n in range(9)))
