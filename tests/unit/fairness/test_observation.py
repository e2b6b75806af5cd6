"""Two looks at a pool, and what is seen from them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fairness.bounds import PoolLimits, service_bound
from fairness.observe.comparison import JAIN_WINDOW_MS, Comparison, FairWindow, Look, Summary
from fairness.observe.history import COARSE_MS, ClientPoint, Coarse, Point
from fairness.observe.observation import (
    ClientRow,
    GroupRow,
    Observation,
    Others,
    Rates,
    ReplicaFacts,
    ReplicaRow,
    facts_from_json,
)
from fairness.observe.stated_bound import bounds_of
from fairness.prediction import Prediction
from fairness.store.contract import ClientState, GroupState, QueueSettings

FACTS = ReplicaFacts(slots=8, lookahead=2, longest=1000, kv_tokens=4000)
REPLICA = ReplicaRow("r1", "tcp://r1", True, 3, 2, FACTS)
SECOND = 1000


def client(
    name: str,
    counter: float,
    waiting: int = 1,
    *,
    running: int = 0,
    used: int = 0,
    group: str = "/",
) -> ClientState:
    """One that has used so many prompt tokens, a quarter of them cached, and as many of output."""
    return ClientState(name, counter, waiting, running, used, used // 4, used, 3.0 * used, group)


class Pool:
    """Looks one after the other, as an observer makes them."""

    def __init__(self, settings: QueueSettings | None = None, top: int = 20) -> None:
        self.window = FairWindow()
        self.settings = settings or QueueSettings()
        self.top = top
        self.at_ms = 1_000_000
        self.before = Look(self.at_ms)

    def look(
        self,
        *clients: ClientState,
        groups: tuple[GroupState, ...] = (),
        weights: dict[str, float] | None = None,
        after_ms: int = 2 * SECOND,
        replicas: tuple[ReplicaRow, ...] = (REPLICA,),
        policy: str = "vtc",
    ) -> Observation:
        self.at_ms += after_ms
        comparison = Comparison(self.before, self.at_ms, self.window, self.top)
        for state in clients:
            comparison.add([state])
        self.before = comparison.look
        return comparison.observation(
            Summary(self.at_ms, policy, 5.0, 700, 50.0, 8.0, replicas),
            groups,
            pool="tiny",
            observer="router-1",
            settings=self.settings,
            weights=weights or {},
        )


def test_rates_are_what_was_used_between_two_looks() -> None:
    pool = Pool()
    pool.look(client("a", 0, used=100), client("b", 0, used=40))
    seen = pool.look(
        client("a", 9, waiting=3, running=1, used=180), client("b", 0, waiting=0, used=40)
    )
    assert seen.rates == Rates(120.0, 40.0, 10.0, 40.0)
    assert (seen.waiting, seen.running, seen.backlogged, seen.known) == (3, 1, 1, 2)
    assert (seen.interval_ms, seen.credits, seen.oldest_wait_ms) == (2000, 3, 700)
    (row,) = seen.clients
    assert row == ClientRow("a", "", None, 9, 3, 1, 540.0, seen.rates)
    assert seen.others == Others(clients=1)


def test_totals_that_shrink_count_as_nothing_used() -> None:
    pool = Pool()
    pool.look(client("a", 0, used=100))
    assert pool.look(client("a", 0, used=20)).rates == Rates()


def test_a_client_that_comes_twice_in_a_look_counts_once() -> None:
    pool = Pool()
    pool.look(client("a", 0))
    seen = pool.look(client("a", 1, used=10), client("a", 1, used=10))
    assert (seen.running, seen.backlogged, seen.rates.input_per_s) == (0, 1, 5.0)


def test_rows_are_for_those_that_get_and_those_that_wait_most_and_others_are_the_rest() -> None:
    pool = Pool(top=2)
    names = "abcdefgh"
    pool.look(*(client(name, 0) for name in names))
    seen = pool.look(
        *(client(name, 0, waiting=i + 1, used=100 - 10 * i) for i, name in enumerate(names))
    )
    assert [row.client for row in seen.clients] == ["a", "b", "h", "g"]
    assert seen.others.clients == 4
    assert seen.others.waiting + sum(row.waiting for row in seen.clients) == seen.waiting
    rows = sum((row.rates for row in seen.clients), Rates())
    assert rows + seen.others.rates == seen.rates
    assert seen.others.rates.service_per_s == pytest.approx((80 + 70 + 60 + 50) * 3 / 2)


def test_the_gap_is_between_those_backlogged_at_both_looks() -> None:
    pool = Pool()
    pool.look(client("a", 10), client("b", 40), client("idle", 0, waiting=0))
    seen = pool.look(client("a", 15), client("b", 60), client("idle", 500, waiting=1))
    assert seen.gap == 45
    assert pool.look(client("a", 15)).gap is None


def test_counters_are_compared_among_those_that_stand_together() -> None:
    pool = Pool()
    members = (
        client("a", 1000, group="acme/"),
        client("b", 1003, group="acme/"),
        client("c", 7, group="/"),
    )
    acme = (GroupState("acme/", 2.0, 12.0, 2, 0),)
    pool.look(*members, groups=acme)
    seen = pool.look(*members, groups=acme)
    assert seen.gap == 5  # acme as a whole and c, not 1003 and 7
    assert seen.groups == (GroupRow("acme", 2.0, 12.0, 2, 0, Rates()),)


def test_a_groups_rates_are_those_of_all_in_it() -> None:
    groups = tuple(GroupState(name, 1, 0, 1, 0) for name in ("acme/", "acme/ml/", "other/"))
    pool = Pool()
    pool.look(client("a", 0, group="acme/ml/"), client("b", 0, group="acme/"), groups=groups)
    seen = pool.look(
        client("a", 0, used=20, group="acme/ml/"),
        client("b", 0, used=40, group="acme/"),
        groups=groups,
    )
    rates = {row.group: row.rates.output_per_s for row in seen.groups}
    assert rates == {"acme": 30.0, "acme/ml": 10.0, "other": 0.0}


def test_jains_index_is_of_those_that_waited_all_the_time() -> None:
    pool = Pool()
    pool.look(client("a", 0), client("b", 0), client("c", 0))
    pool.look(client("a", 0), client("b", 0), client("c", 0, waiting=0))
    seen = pool.look(client("a", 30), client("b", 10), client("c", 500))
    assert seen.jain == pytest.approx((30 + 10) ** 2 / (2 * (30**2 + 10**2)))
    assert seen.jain_ms == 4 * SECOND


def test_jains_index_forgets_what_is_long_ago() -> None:
    pool = Pool()
    counters = {"a": 0.0, "b": 0.0}
    step = JAIN_WINDOW_MS // 10
    for number in range(60):
        if number < 20:
            counters["a"] += 100  # unfair, then fair
        else:
            counters = {name: counter + 50 for name, counter in counters.items()}
        seen = pool.look(*(client(n, c) for n, c in counters.items()), after_ms=step)
        if number == 15:
            assert seen.jain == pytest.approx(0.5)
    assert seen.jain == pytest.approx(1.0)
    assert JAIN_WINDOW_MS <= seen.jain_ms <= 2 * JAIN_WINDOW_MS


def test_nobody_to_compare_has_no_index() -> None:
    pool = Pool()
    pool.look(client("a", 0))
    seen = pool.look(client("a", 50))
    assert seen.jain is None and seen.gap is None


def test_the_bound_is_that_of_the_replicas_there_are_and_of_the_lightest_that_waits() -> None:
    settings = QueueSettings(burst=100, prediction=Prediction("none"))
    pool = Pool(settings)
    states = (client("a", 0), client("b", 0), client("idle", 0, waiting=0))
    weights = {"a": 2.0, "b": 0.5, "idle": 0.01}
    seen = pool.look(*states, weights=weights, replicas=(REPLICA, REPLICA))
    limits = PoolLimits(2, 1000, 1000, window=10, burst=100)
    assert seen.bound == pytest.approx(service_bound(limits, 0.5, 0.5))
    assert seen.paper_bound is not None and seen.paper_bound < seen.bound


def test_nothing_is_promised_of_first_come_first_served() -> None:
    seen = Pool().look(client("a", 0), client("b", 9), policy="fcfs")
    assert seen.bound is None and seen.paper_bound is None


def test_without_every_replicas_facts_no_bound_is_stated() -> None:
    settings = QueueSettings()
    assert bounds_of([FACTS, None], settings, 1, 10).stated is None
    assert bounds_of([], settings, 1, 10).stated is None
    assert bounds_of([replace(FACTS, kv_tokens=0)], settings, 1, 10).paper is None


def test_what_is_charged_in_advance_widens_the_bound() -> None:
    charged = QueueSettings(prediction=Prediction("pool_average"))
    none = QueueSettings(prediction=Prediction("none"))
    assert bounds_of([FACTS], charged, 1, 80).stated > bounds_of([FACTS], none, 1, 80).stated


def test_json_there_and_back() -> None:
    pool = Pool()
    groups = (GroupState("acme/", 2.0, 12.0, 2, 0),)
    pool.look(client("a", 0, group="acme/"), client("b", 0))
    seen = pool.look(client("a", 5, used=7, group="acme/"), client("b", 0), groups=groups)
    assert Observation.from_json(seen.to_json()) == seen
    newer = seen.to_json().replace(b'"at_ms":', b'"what_comes_later":{},"at_ms":')
    assert Observation.from_json(newer) == seen
    with pytest.raises(ValueError, match="no observation"):
        Observation.from_json(b'{"at_ms": 1}')
    assert Point.from_json(Point.of(seen).to_json()) == Point.of(seen)
    with pytest.raises(ValueError, match="no facts"):
        facts_from_json(b"[]")


def test_a_coarse_point_is_the_mean_and_the_worst_of_its_minute() -> None:
    pool = Pool()
    coarse, made = Coarse(), []
    pool.look(client("a", 0), client("b", 0))
    steps = COARSE_MS // (2 * SECOND)
    for number in range(1, 2 * steps + 1):
        gap = 90.0 if number == 5 else 1.0
        seen = pool.look(client("a", gap, used=10 * number), client("b", 0))
        point = coarse.add(Point.of(seen))
        made += [point] if point else []
    first, second = made
    assert first.interval_ms == COARSE_MS and second.at_ms - first.at_ms == COARSE_MS
    assert first.rates.input_per_s == pytest.approx(5.0)
    assert (first.gap, second.gap) == (90.0, 1.0)
    assert first.clients["a"] == ClientPoint(pytest.approx(15.0), 1.0, 1.0)
