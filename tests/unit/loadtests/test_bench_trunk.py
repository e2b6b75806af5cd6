"""The two ways that the bench compares carry the same bytes."""

import pytest

from loadtests import bench_trunk


@pytest.mark.parametrize("way", [bench_trunk.over_trunk, bench_trunk.over_http])
async def test_every_byte_arrives_and_costs_something(
    way: bench_trunk.Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_trunk, "CHUNKS", 20)
    assert await bench_trunk.cost(way, streams=4) > 0
