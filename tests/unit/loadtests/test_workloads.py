"""Workloads of our own, copies of them, parts of them, and files."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtests.workloads import ours
from loadtests.workloads.arrivals import Lengths
from loadtests.workloads.csv_file import BadWorkloadFile, read_csv
from loadtests.workloads.paper import paper_suite
from loadtests.workloads.part import only, through_routers
from loadtests.workloads.registry import REGISTRY, descriptions, workload
from loadtests.workloads.scale import copies
from loadtests.workloads.workload import Request, Workload

OURS = [name for name in REGISTRY if hasattr(ours, name)]
HEADER = "arrival_s,client,input_tokens,output_tokens\n"


def tokens(load: Workload) -> int:
    return sum(request.input_tokens + request.output_tokens for request in load.requests)


@pytest.mark.parametrize("name", REGISTRY)
def test_every_workload_is_in_order_and_fits_the_papers_server(name: str) -> None:
    made = workload(name, seed=3)
    assert made.requests
    assert all(a.at <= b.at for a, b in zip(made.requests, made.requests[1:], strict=False))
    assert made.requests[0].at >= 0
    for request in made.requests:
        assert 1 <= request.input_tokens <= 2048
        assert request.output_tokens >= 1
        assert request.input_tokens + request.output_tokens <= 3072
        assert request.prefix_tokens <= request.input_tokens
        assert request.abort_after is None or 1 <= request.abort_after < request.output_tokens


@pytest.mark.parametrize("name", OURS)
def test_ours_repeat_by_seed_and_grow_with_the_replicas(name: str) -> None:
    make = getattr(ours, name)
    once = make(seed=1, seconds=120)
    assert make(seed=1, seconds=120) == once
    assert make(seed=2, seconds=120) != once
    four = make(replicas=4, seed=1, seconds=120)
    assert len(four.clients) >= len(once.clients)
    assert tokens(four) == pytest.approx(4 * tokens(once), rel=0.25)


def test_each_of_ours_is_about_what_it_says() -> None:
    loads: dict[str, Workload] = {}

    def by(name: str, client: str) -> list[Request]:
        if name not in loads:
            loads[name] = workload(name, seed=1)
        return [r for r in loads[name].requests if r.client == client]

    zipf = {client: len(by("zipf_tenants", client)) for client in ("tenant000", "tenant009")}
    assert zipf["tenant000"] == pytest.approx(10 * zipf["tenant009"], rel=0.5)
    assert len(by("noisy_neighbour", "flooder")) > 20 * len(by("noisy_neighbour", "polite"))
    assert all(request.at // 60 % 2 == 0 for request in by("on_off", "bursts60"))
    assert all(request.at // 30 % 2 == 1 for request in by("on_off", "bursts30"))
    assert all(request.abort_after == 16 for request in by("aborters", "hasty"))
    cut = sum(request.abort_after is not None for request in by("aborters", "fickle"))
    assert cut == pytest.approx(len(by("aborters", "fickle")) / 2, rel=0.2)
    assert {request.key for request in by("many_keys", "hoarder")} == set(range(8))
    assert {request.key for request in by("many_keys", "one_key1")} == {0}
    assert len({request.prefix for request in by("shared_prefixes", "tenant3")}) == 2
    assert {request.entry for request in by("some_routers", "last_only")} == {1}
    assert by("newcomer", "newcomer")[0].at >= 450
    crowd = by("thousand_connections", "crowd")
    assert len(crowd) == 1000
    assert crowd[-1].at - crowd[0].at <= 1.0
    assert dict(workload("weighted", seed=1).weights)["weight3"] == 3.0


def test_a_newcomer_may_come_after_an_hour() -> None:
    load = ours.newcomer(seed=1, seconds=3900, joins=3600)
    assert 3600 <= next(r.at for r in load.requests if r.client == "newcomer") < 3660


@settings(deadline=None, max_examples=50)
@given(count=st.integers(1, 5), seed=st.integers(0, 2**32 - 1), jitter=st.floats(0, 30))
def test_copies_keep_each_request_and_put_it_off_a_little(
    count: int, seed: int, jitter: float
) -> None:
    one = Workload(
        "three",
        tuple(Request(float(at), f"c{at}", 10 + at, 20 + at) for at in range(3)),
        {"c1": 2.0},
    )
    many = copies(one, count, seed=seed, jitter_s=jitter)
    assert many.weights == one.weights
    assert [r.at for r in many.requests] == sorted(r.at for r in many.requests)
    for request in one.requests:
        same = [r for r in many.requests if r.client == request.client]
        assert len(same) == count
        assert {r.input_tokens for r in same} == {request.input_tokens}
        assert all(request.at <= r.at <= request.at + jitter for r in same)


def test_copies_do_not_march_in_step_and_repeat_by_seed() -> None:
    one = paper_suite("overload")
    four = copies(one, 4, seed=1)
    assert len({request.at for request in four.requests}) == 4 * len(one.requests)
    assert copies(one, 4, seed=1) == four
    assert copies(one, 1, seed=1) != one  # one copy is jittered as well


def test_no_copies_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one copy"):
        copies(paper_suite("overload"), 0, seed=1)


def test_parts_of_a_workload() -> None:
    load = workload("weighted", seed=1)
    alone = only(load, {"weight2"})
    assert alone.clients == ("weight2",)
    assert dict(alone.weights) == {"weight2": 2.0}
    reached = through_routers(load, {"weight1": [2], "weight2": [0, 1]})
    entries = {
        name: {r.entry for r in reached.requests if r.client == name} for name in load.clients
    }
    assert entries == {"weight1": {2}, "weight2": {0, 1}, "weight3": {None}, "weight4": {None}}


def test_several_copies_of_a_recorded_workload_need_a_seed() -> None:
    assert workload("overload") == paper_suite("overload")
    with pytest.raises(ValueError, match="seed"):
        workload("overload", replicas=2)


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="noisy_neighbour"):
        workload("nosy_neighbour")
    assert all(name in descriptions() for name in REGISTRY)


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_is_a_workload(tmp_path: Path, packed: bool) -> None:
    text = "client,extra,output_tokens,input_tokens,arrival_s\nbob,x,7,5,2.5\nalice,y,1,2,0\n"
    path = tmp_path / ("mine.csv.gz" if packed else "mine.csv")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert workload(str(path)) == Workload(
        "mine", (Request(0.0, "alice", 2, 1), Request(2.5, "bob", 5, 7))
    )
    assert len(workload(str(path), replicas=3, seed=1).requests) == 6


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"line 1: .*arrival_s"),
        ("arrival_s,client,input_tokens\n", r"line 1: .*output_tokens missing"),
        (HEADER, "no requests"),
        (HEADER + "0,bob,1,1\nsoon,bob,1,1\n", r"line 3, column arrival_s: 'soon'"),
        (HEADER + "-1,bob,1,1\n", r"line 2, column arrival_s"),
        (HEADER + "nan,bob,1,1\n", r"line 2, column arrival_s"),
        (HEADER + "0, ,1,1\n", r"line 2, column client"),
        (HEADER + "0,bob,1.5,1\n", r"line 2, column input_tokens: '1.5'"),
        (HEADER + "0,bob,1,0\n", r"line 2, column output_tokens: '0'"),
        (HEADER + "0,bob,1\n", r"line 2, column output_tokens: None"),
    ],
)
def test_a_bad_file_is_told_where(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(BadWorkloadFile, match=says):
        read_csv(path)


def test_what_is_not_text_is_told(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv.gz"
    path.write_bytes(b"not packed")
    with pytest.raises(BadWorkloadFile, match=r"bad\.csv\.gz"):
        read_csv(path)


def test_lengths_stay_in_their_limits() -> None:
    import numpy as np

    drawn = Lengths(100, 2.0, longest=300).draw(np.random.default_rng(1), 1000)
    assert min(drawn) >= 1
    assert max(drawn) == 300
    assert 80 < sorted(drawn)[500] < 120
