"""The bars, from records to the exit status."""

import json
from array import array

import pytest

from loadtests.chaos.application import Books
from loadtests.chaos.charges import Account, Audit, Tokens
from loadtests.chaos.leaks import Leftovers
from loadtests.chaos.outcomes import Refusals, tally
from loadtests.chaos.scenarios import SCENARIOS
from loadtests.chaos.stage import Played, Pool, findings, usual_load
from loadtests.chaos.verdict import Findings, Verdict, judge, summary, table
from loadtests.driver import Report, RequestRecord


def answered(client: str, at: float) -> RequestRecord:
    made = RequestRecord(client, at, 128, sent=at, status=200, ended=at + 1, complete=True)
    made.input_tokens, made.output_tokens = 100, 50
    made.chunk_times, made.chunk_events = array("d", [at + 0.5]), array("L", [51])
    return made


def owing(*, excess: int = 0, missing: int = 0) -> Audit:
    told = Tokens(1000, 500)
    charged = Tokens(1000 + excess, 500 - missing)
    return Audit({"alice": Account(told, charged, Tokens(), told)})


def found(**more) -> Findings:
    values = {
        "outcomes": tally([answered("alice", 1.0)]),
        "leftovers": Leftovers(),
        "fair_again_s": 3.0,
        "audit": owing(),
        "usage": owing(),
        "tokens_per_s": 100.0,
        "may_forget": False,
    }
    return Findings(**(values | more))


HUNG = RequestRecord("alice", 1.0, 128, sent=1.0, aborted=True, ended=91.0)


@pytest.mark.parametrize(
    ("findings", "bar"),
    [
        (found(outcomes=tally([answered("a", 1), HUNG])), "1 requests were lost"),
        (found(outcomes=tally([])), "nothing was answered"),
        (found(leftovers=Leftovers(keys=["arrivals"])), "left behind: keys arrivals"),
        (found(fair_again_s=None), "not fair again"),
        (found(fair_again_s=30.25), "only after 30.2 s"),
        (found(audit=owing(excess=1), may_forget=True), "1 tokens were charged twice"),
        (found(audit=owing(missing=1)), "1 tokens were never charged, 0 may be"),
        (found(audit=owing(missing=151), may_forget=True), "151 tokens were never charged, 150"),
        (found(usage=owing(excess=2)), "usage: 2 tokens were charged twice"),
        (found(usage=owing(missing=3)), "usage: 3 tokens were never charged, 0 may be"),
        (found(refusals=Refusals(refused=9, wrong=1)), "1 requests without a store"),
        (found(refusals=Refusals(refused=0, wrong=0)), "nothing was refused"),
        (found(goes_on=True), "0 requests were answered during the fault"),
        (
            found(goes_on=True, answered_in_fault=24, answered_per_s=10, fault_s=10),
            "24 requests were answered during the fault, not 25",
        ),
        (found(healed=False), "not all routers and replicas came back"),
    ],
)
def test_each_bar_can_be_missed(findings: Findings, bar: str) -> None:
    verdict = judge("x", findings)
    assert not verdict.passed
    assert len(verdict.missed) == 1 and bar in verdict.missed[0]


@pytest.mark.parametrize(
    "findings",
    [
        found(),
        found(fair_again_s=30.0),
        found(audit=owing(missing=150), may_forget=True),
        found(refusals=Refusals(refused=9, wrong=0)),
        found(goes_on=True, answered_in_fault=1),
        found(goes_on=True, answered_in_fault=25, answered_per_s=10, fault_s=10),
    ],
)
def test_each_bar_can_be_reached(findings: Findings) -> None:
    assert judge("x", findings).passed


def test_the_table_and_the_json_hold_every_scenario() -> None:
    verdicts = [judge("good", found()), Verdict("unplayed", ("it would not start",))]
    assert table(verdicts).row_count == 2
    numbers = json.loads(json.dumps(summary(verdicts)))
    assert numbers["good"]["passed"] and numbers["good"]["answered"] == 1
    assert numbers["unplayed"] == {"passed": False, "missed": ["it would not start"]}


POOL = Pool("tiny", replicas=2, routers=2, slots=16, lookahead=4, bound=1000.0)
NAMED = {scenario.name: scenario for scenario in SCENARIOS}


def even_load(until: float) -> list[RequestRecord]:
    return [answered(name, k / 2) for k in range(int(until * 2)) for name in ("alice", "bob")]


def played(records: list[RequestRecord], charged: Tokens, fault=(10.0, 20.0)) -> Played:
    report = Report(0.0, 61.0, tuple(records))
    after = {"alice": charged, "bob": charged}
    return Played(report, fault, 60.0, Books({}, {}), Books(after, after), Leftovers())


def test_a_calm_run_passes_every_bar() -> None:
    run = played(even_load(60), Tokens(120 * 100, 120 * 50))
    verdict = judge("x", findings(NAMED["stall-store"], POOL, run))
    assert verdict.missed == ()
    assert verdict.findings is not None
    assert verdict.findings.fair_again_s == 0.0
    assert verdict.findings.answered_in_fault == 40
    assert verdict.findings.answered_per_s == pytest.approx(3.8)


def test_a_router_may_cut_and_a_store_may_not() -> None:
    cut = RequestRecord("alice", 9.0, 128, sent=9.0, ended=11.0, error="Server disconnected")
    run = played([*even_load(60), cut], Tokens(120 * 100, 120 * 50), fault=(10.0, 10.1))
    assert judge("x", findings(NAMED["kill-router"], POOL, run)).passed
    assert "1 requests were lost" in judge("x", findings(NAMED["cut-store"], POOL, run)).missed


def test_a_starved_client_is_seen() -> None:
    records = [r for r in even_load(60) if r.client == "alice" or r.scheduled < 20]
    run = played(records, Tokens(120 * 100, 120 * 50))
    assert findings(NAMED["stall-store"], POOL, run).fair_again_s is None


def test_names_are_unique_and_the_load_fills_the_pool_twice() -> None:
    assert len(NAMED) == len(SCENARIOS)
    pool = Pool.of_config()
    for name in ("alice", "bob"):
        mine = [c.workload.concurrency for c in usual_load(60) if c.name == name]
        assert sum(mine) >= pool.replicas * (pool.slots + pool.lookahead)
    assert pool.prefix.endswith(":{tiny}:")
