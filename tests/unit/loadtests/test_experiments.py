"""The experiments: what they plan, how they sum up, and that workers change nothing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from loadtests.experiments import cluster, command, compare, paper
from loadtests.experiments.play import Played, Results, Trial, play_all
from loadtests.experiments.recorded import PROFILED_RUNS, RUNS, beside
from loadtests.experiments.systems import DEFAULT, EXACT, PREDICTED
from loadtests.measures.difference import ServiceDifference
from loadtests.measures.summary import Summary
from loadtests.report.document import Table
from loadtests.simulator.named import SYSTEMS
from loadtests.workloads.registry import REGISTRY

SUMMARY = Summary(
    system="", workload="", replicas=1, seed=0, max_diff=300.0, avg_diff=200.0, var_diff=9.0,
    gap=5000.0, gap_at_ticks=4000.0, jain=1.0, ttft_p50=1.0, ttft_p99=2.0, small_p99_ttft=15.0,
    throughput=800.0, makespan=700.0, done=10, aborted=0, refused=0, failed=0,
)  # fmt: skip


def pretend(trial: Trial) -> Played:
    """What a run might have said: worse by seed and replicas, slower under one system."""
    summary = replace(
        SUMMARY,
        avg_diff=SUMMARY.avg_diff * trial.replicas + trial.seed,
        gap_at_ticks=1000.0 * trial.seed,
        throughput=SUMMARY.throughput * (0.98 if trial.system == PREDICTED else 1.0),
    )
    watched = (0.5, 2.0 if trial.alone else 5.0) if trial.watch else None
    profiled = ServiceDifference((0.0,), (10.0 * trial.seed,)) if trial.profiled else None
    return Played(trial, summary, watched=watched, profiled=profiled)


def test_every_run_that_is_planned_can_be_made() -> None:
    plans = [paper.trials(2), cluster.trials(cluster.SYSTEMS, [1, 4], 2, hard_cases=True)]
    assert all(len(set(plan)) == len(plan) for plan in plans)  # none is made twice
    plan = [trial for each in plans for trial in each]
    assert {trial.workload for trial in plan} <= set(REGISTRY)
    assert {trial.system for trial in plan} <= set(SYSTEMS)
    # Only what is drawn is brought back from other processes.
    assert {trial.seed for trial in plan if trial.keep} == {1}


def test_the_clusters_numbers_are_medians_and_the_default_gap_the_largest() -> None:
    results = Results(map(pretend, cluster.trials(cluster.SYSTEMS, [1, 4], 5)))
    numbers = cluster.report(results, cluster.SYSTEMS, [1, 4], 5).numbers
    assert numbers["arena_r4_avg_diff_per_r"] == pytest.approx((800 + 3) / 4)
    assert numbers["overload_r4_gap"] == 3000
    assert numbers["overload_r4_pred_gap"] == 3000
    assert numbers["default_overload_r4_gap"] == 5000
    assert numbers["default_arena_r4_avg_diff_per_r"] == pytest.approx((800 + 3) / 4)
    assert numbers["arena_r4_small_p99_ttft_s"] == 15
    assert numbers["min_throughput_vs_fcfs"] == pytest.approx(0.98)


def test_neighbours_are_compared_with_being_alone() -> None:
    results = Results(map(pretend, cluster.trials(cluster.SYSTEMS, [1, 4], 2, hard_cases=True)))
    made = cluster.report(results, cluster.SYSTEMS, [1, 4], 2, hard_cases=True)
    headings = [section.heading for section in made.sections]
    where = next(k for k, heading in enumerate(headings) if "flooder" in heading)
    table = made.sections[where].blocks[0]
    assert isinstance(table, Table)
    assert [row.values[-1] for row in table.rows] == [2.5] * len(table.rows)
    assert "Hard cases, 4 servers" in headings


def test_the_papers_numbers_stand_beside_ours() -> None:
    made = paper.report(Results(map(pretend, paper.trials(3))), 3)
    assert made.numbers["arena_r1_avg_diff"] == 202
    assert made.numbers["arena_r1_pred_avg_diff"] == 202
    first = next(block for block in made.sections[0].blocks if isinstance(block, Table))
    vtc = next(row for row in first.rows if row.name == "VTC, one queue")
    assert [getattr(cell, "beside", None) for cell in vtc.values[:3]] == [368.4, 251.66, 6549.16]


def test_the_profiled_cost_has_a_table_of_its_own() -> None:
    made = paper.report(Results(map(pretend, paper.trials(3))), 3)
    section = next(section for section in made.sections if "tables 3 and 4" in section.heading)
    (table,) = section.blocks
    assert isinstance(table, Table)
    rows = {row.name: row.values for row in table.rows}
    assert [getattr(cell, "value", None) for cell in rows["arena: VTC, profiled cost"][:2]] == [
        20
    ] * 2
    assert [getattr(cell, "beside", None) for cell in rows["arena: FCFS, least loaded"][:2]] == [
        743.23,
        457.29,
    ]


def test_recordings_of_another_length_do_not_stand_beside_ours() -> None:
    assert RUNS["overload", "fcfs"].seconds == 600
    assert beside("overload", "fcfs") is None
    assert beside("overload", "vtc") is not None
    assert {load for load, _ in [*RUNS, *PROFILED_RUNS]} <= set(REGISTRY)
    assert {system for _, system in [*RUNS, *PROFILED_RUNS]} <= set(SYSTEMS)
    assert {EXACT, PREDICTED, DEFAULT} <= set(SYSTEMS)


def test_workers_change_nothing_and_order_is_the_plans() -> None:
    plan = [
        Trial("ablation_lshare", "fcfs", 1, 1, watch="client1", alone=True),
        Trial("ablation_lshare", "vtc", 2, 1, ("client1", "client2"), keep=True),
    ]
    alone, told = play_all(plan, workers=1, done=lambda _: None), []
    together = play_all(plan, workers=2, done=told.append)
    assert alone == together
    assert [played.trial for played in together] == plan
    assert sorted(told, key=plan.index) == plan
    assert together[0].run is None
    assert together[0].summary.done == 60  # client1's
    assert together[0].watched is not None
    assert together[1].run is not None


def test_the_last_line_is_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "play_all", lambda trials, **_: [pretend(t) for t in trials])
    assert cluster.main(["--seeds", "2", "--replicas", "4", "--out", str(tmp_path)]) == 0
    last = capsys.readouterr().out.rstrip().rpartition("\n")[2]
    assert json.loads(last)["overload_r4_gap"] == 1500
    assert {path.name for path in tmp_path.iterdir()} == {"cluster.html", "cluster.json"}


@pytest.mark.parametrize("wrong", [["--systems", "vtcc"], ["--seeds", "0"], ["--replicas", "0,4"]])
def test_wrong_options_are_told(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cluster.main(wrong)
    assert "error" in capsys.readouterr().err


def test_a_workload_of_ones_own_is_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [f"{n / 10},{'alice' if n % 4 else 'bob'},50,20" for n in range(40)]
    mine = tmp_path / "mine.csv"
    mine.write_text("\n".join(["arrival_s,client,input_tokens,output_tokens", *rows]))
    options = ["--workload", str(mine), "--systems", "fcfs,vtc", "--seeds", "1", "--workers", "1"]
    assert compare.main([*options, "--out", str(tmp_path)]) == 0
    numbers = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert numbers["fcfs"]["throughput"] > 0
    assert numbers["vtc"]["refused"] == 0
    assert "mine, simulated" in (tmp_path / "compare.html").read_text()


@pytest.mark.parametrize("wrong", [["--workload", "nothing"], ["--workload", "gone.csv"]])
def test_a_workload_that_is_not_there_is_named(wrong, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compare.main(wrong)
    assert wrong[1] in capsys.readouterr().err
