"""What so many GPUs take, and that the operating guide's table is what the model says."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from deployments import capacity, cli
from deployments.capacity import Load, need, table

ROOT = Path(__file__).parents[3]


def test_the_guides_table_is_the_models() -> None:
    assert table() in (ROOT / "docs/operations.md").read_text(), "paste `fairlane capacity --table`"


def test_the_guide_names_the_costs_that_the_model_has() -> None:
    guide = (ROOT / "docs/operations.md").read_text()
    for cost in (
        capacity.REQUEST_S, capacity.CHARGE_S, capacity.CALL_S, capacity.ROUTER_TOKEN_S,
        capacity.PROXY_TOKEN_S, capacity.REPLICA_TOKEN_S,
    ):  # fmt: skip
        assert f"| {cost * 1e6:.0f} us |" in guide


def test_a_requests_cost_is_near_what_was_measured_for_all_its_calls() -> None:
    """5,000 requests/s, five a call each way, nothing charged: 77 to 122 us."""
    each = capacity.REQUEST_S + 2 / 5 * capacity.CALL_S
    assert 77e-6 < each < 1.2 * 122e-6


def test_charges_are_reported_as_often_as_the_store_affords() -> None:
    assert need(Load(1)).charge_interval_s == 0.1
    for gpus in (1, 10, 50, 100, 200):
        found = need(Load(gpus))
        assert found.store_charges <= capacity.CHARGES_SHARE
        if found.charge_interval_s > 0.1:
            sooner = replace(Load(gpus), charge_interval_s=found.charge_interval_s / 2)
            assert need(sooner).store_charges > 0.8 * capacity.CHARGES_SHARE
    given = need(Load(100, charge_interval_s=0.1))
    assert given.charge_interval_s == 0.1
    assert given.limit is not None
    assert "store" in given.limit


def test_fewer_larger_replicas_take_less_of_the_store_and_twice_the_tokens_twice_the_routers() -> (
    None
):
    assert need(Load(1000, 8)).store < need(Load(1000, 4)).store / 1.5
    one, two = need(Load(400, 4)), need(Load(400, 4, tokens_per_s=4000))
    assert two.routers == pytest.approx(2 * one.routers, abs=1)
    assert need(Load(1)).routers == 2  # one may go


@pytest.mark.parametrize("wrong", [{"gpus": 0}, {"running": -1}, {"charge_interval_s": 0.0}])
def test_loads_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        Load(**({"gpus": 8} | wrong))


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fairlane", "capacity", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_command_tells_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--gpus", "100", "--json") == 0
    assert json.loads(capsys.readouterr().out)["replicas"] == 100
    assert run(monkeypatch, "--gpus", "100", "--charge-interval-s", "0.1") == 0
    shown = capsys.readouterr().out
    assert "routers: 10," in shown
    assert "limit: the store" in shown
    assert run(monkeypatch, "--table") == 0
    assert capsys.readouterr().out.rstrip() == table()
    assert run(monkeypatch, "--gpus", "-1") == 2
