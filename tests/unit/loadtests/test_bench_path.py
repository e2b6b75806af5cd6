"""The bench's arithmetic: medians over rounds, ratios within a round."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from deployments.local_cluster import load
from loadtests import bench_path
from loadtests.bench_path import Engine, Measured, summary, table
from loadtests.observed import PLAIN, WATCHED, write_variant


def measured(tokens_per_s: float, frontend: float = 100.0, ttft_ms: float = 9.0) -> Measured:
    return Measured(tokens_per_s, ttft_ms, 100.0, frontend, 90.0, {"python": frontend})


ROUNDS = {
    "vllm": [measured(1000), measured(500), measured(2000)],
    "rayllm": [measured(300), measured(150), measured(700)],
    "fairlane": [measured(900), measured(400), measured(1600)],
}


def test_medians_are_named_by_system() -> None:
    numbers = summary(ROUNDS)
    assert numbers["vllm_tps"] == 1000
    assert numbers["rayllm_tps"] == 300
    assert numbers["fairlane_tps"] == 900
    assert numbers["fairlane_frontend_us_per_token"] == 100
    assert numbers["vllm_ttft_ms"] == numbers["fairlane_ttft_ms"] == 9


def test_ratios_are_taken_within_rounds() -> None:
    numbers = summary(ROUNDS)
    assert numbers["fairlane_tps_over_vllm"] == 0.8  # 0.9, 0.8, 0.8
    assert numbers["fairlane_tps_over_rayllm"] == pytest.approx(2.667)  # 3, 2.667, 2.286
    assert numbers["rayllm_tps_over_vllm"] == 0.3


def test_a_selection_has_no_ratios_to_what_was_left_out() -> None:
    numbers = summary({"fairlane": ROUNDS["fairlane"]})
    assert not [key for key in numbers if "_over_" in key]
    assert table({"fairlane": ROUNDS["fairlane"]}).row_count == 1


def test_what_watching_costs_is_a_ratio_within_rounds() -> None:
    plain = [measured(1000), measured(500), measured(800)]
    watched = [measured(980), measured(495), measured(784)]
    assert summary({"plain": plain, "watched": watched})["watched_tps_over_plain"] == 0.98


@pytest.mark.parametrize("changes", [PLAIN, WATCHED])
def test_both_are_sound_configurations(changes: dict[str, Any], tmp_path: Path) -> None:
    file = write_variant(bench_path.CONFIG, changes, tmp_path / "variant.yaml")
    app = load(file).app
    assert bool(app.explain.keep) == app.logging.access == (changes is WATCHED)
    assert (app.tracing.resolved() is not None) == (changes is WATCHED)


def test_the_front_end_is_told_by_parts() -> None:
    def round_of(router: float) -> Measured:
        by_process = {
            "ray::ServeReplica:fairlane:Replica:tiny": 60.0,
            "ray::ServeReplica:fairlane:Router": router,
            "ray::ServeReplica:fairlane:Store": 1.0,
            "valkey-server": 2.0,
            "haproxy": 9.0,
            "ray::ServeController": 3.0,
            "ray::HAProxyManager": 2.0,
        }
        return Measured(1000, 9.0, 100.0, 77.0 + router, 90.0, by_process)

    assert bench_path.parts([round_of(20.0), round_of(30.0), round_of(24.0)]) == {
        "replica": 60.0,
        "router": 24.0,
        "HAProxy": 9.0,
        "store": 3.0,
        "Ray and others": 5.0,
    }


def test_names_are_checked() -> None:
    assert bench_path._names("vllm, fairlane") == ["vllm", "fairlane"]
    with pytest.raises(argparse.ArgumentTypeError, match="choose from"):
        bench_path._names("vllm,tgi")


def test_engine_arguments_become_flags() -> None:
    engine = Engine(Path("m"), "tiny", {"max_num_seqs": 64, "a_b": True, "c_d": False}, {})
    assert engine.flags() == ["--max-num-seqs", "64", "--a-b", "--no-c-d"]


def test_all_systems_run_the_engine_of_fairlanes_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_path, "ensure_tiny_model", lambda: tmp_path)
    engine = Engine.of_config()
    assert engine.arguments["max_num_seqs"] == bench_path.STREAMS
    assert engine.environment["OMP_NUM_THREADS"] == "1"
    vllm = bench_path.vllm_command(engine, 1)
    rayllm = bench_path.rayllm_command(engine, 1)
    assert set(engine.flags()) <= set(vllm)
    assert json.loads(rayllm[-1]) == engine.arguments
    assert str(bench_path.STREAMS) in bench_path.fairlane_command(engine, 1)
