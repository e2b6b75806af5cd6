"""What watchers get, what charts are made of, and what another weight would do."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator

import pytest

from fairness.observe.history import ClientPoint, Point
from fairness.observe.observation import ClientRow, GroupRow, Observation, Others, Rates
from router.admin.what_if import Change, Share, what_if
from router.errors import ApiError
from router.live.charts import columns, thinned
from router.live.feed import Feed
from router.live.smooth import smoothed

NOBODY = Others()


def row(
    name: str, rate: float, *, waiting: int = 0, weight: float | None = 1.0, group: str = ""
) -> ClientRow:
    return ClientRow(name, group, weight, 0.0, waiting, 1, 0.0, Rates(rate))


def seen(
    *clients: ClientRow, groups: tuple[GroupRow, ...] = (), others: Others = NOBODY, at: int = 0
) -> Observation:
    total = sum(client.rates.service_per_s for client in clients) + others.rates.service_per_s
    return Observation(
        at_ms=at, interval_ms=2000, pool="tiny", observer="r", policy="vtc", virtual_time=0.0,
        waiting=1, running=1, backlogged=1, known=2, credits=0, oldest_wait_ms=0, prediction=0.0,
        prediction_error=0.0, rates=Rates(total), gap=None, bound=None, paper_bound=None,
        jain=None, jain_ms=0, clients=clients, groups=groups, others=others,
    )  # fmt: skip


async def test_watchers_get_the_last_frame_at_once_and_then_each_new_one() -> None:
    feed = Feed()
    feed.tell(seen(at=1))
    one = feed.watch()
    assert await anext(one) == b"retry: 2000\n\n"
    assert b'"at_ms":1,' in await anext(one)
    feed.tell(seen(at=2))
    assert b'"at_ms":2,' in await anext(one)
    assert len(feed) == 1
    await one.aclose()
    assert len(feed) == 0


async def test_a_slow_watcher_misses_frames_and_holds_none() -> None:
    feed = Feed()
    slow = feed.watch()
    await anext(slow)
    for at in range(1, 1000):
        feed.tell(seen(at=at))
    assert b'"at_ms":999,' in await anext(slow)
    waiting = asyncio.ensure_future(anext(slow))
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()


async def test_a_router_that_ends_ends_all_streams() -> None:
    feed = Feed()
    feed.tell(seen(at=1))
    one, other = feed.watch(), feed.watch()
    for stream in (one, other):
        await anext(stream)
    waiting = [asyncio.ensure_future(collect(stream)) for stream in (one, other)]
    await asyncio.sleep(0)
    feed.close()
    async with asyncio.timeout(10):
        await asyncio.gather(*waiting)
    assert len(feed) == 0


async def collect(stream: AsyncIterator[bytes]) -> list[bytes]:
    return [frame async for frame in stream]


async def test_only_so_many_may_watch() -> None:
    feed = Feed(most=1)
    one = feed.watch()
    await anext(one)
    with pytest.raises(ApiError) as refused:
        feed.watch()
    assert refused.value.status == 503
    await one.aclose()
    feed.watch()


def point(at_ms: int, **clients: float) -> Point:
    rows = {name: ClientPoint(rate, 1, 7.5) for name, rate in clients.items()}
    total = Rates(sum(clients.values()))
    return Point(at_ms, 2000, "vtc", 1, 1, 1, 0, 1, 0, total, None, None, None, rows)


def test_a_chart_has_columns_of_those_that_received_most() -> None:
    points = [point(0, a=1, b=5), point(2000, a=1, c=100)]
    told = columns(points, most=2)
    assert told["at_ms"] == [0, 2000]
    assert list(told["clients"]) == ["c", "b"]
    assert told["clients"]["b"] == {
        "service_per_s": [5, None],
        "waiting": [1, None],
        "counter": [7.5, None],
    }
    assert columns([])["clients"] == {}


def test_thinning_keeps_the_totals_and_the_gaps() -> None:
    points = [point(2000 * n, a=n) for n in (*range(10), *range(20, 30))]
    thin = thinned(points, 10_000)
    assert [one.at_ms // 10_000 for one in thin] == [0, 1, 4, 5]
    assert sum(one.rates.service_per_s * one.interval_ms for one in thin) == pytest.approx(
        sum(one.rates.service_per_s * one.interval_ms for one in points)
    )


def test_rates_are_means_of_the_last_observations() -> None:
    before, now = seen(row("a", 10), row("b", 30)), seen(row("a", 30))
    smooth = smoothed([before, now])
    assert smooth.rates.service_per_s == 35
    assert [(one.client, one.rates.service_per_s) for one in smooth.clients] == [("a", 20)]


def by_name(shares: list[Share]) -> dict[str, Share]:
    return {share.name: share for share in shares}


def test_a_greedy_client_gets_what_its_new_weight_says() -> None:
    now = seen(row("a", 50, waiting=9), row("b", 50, waiting=9), row("c", 20))
    told = by_name(what_if(now, {}, Change("client", "a", 3.0)))
    assert (told["a"].before_per_s, told["a"].after_per_s) == (50, 75)
    assert (told["b"].before_per_s, told["b"].after_per_s) == (50, 25)
    assert (told["c"].now_per_s, told["c"].before_per_s, told["c"].after_per_s) == (20, 20, 20)
    assert not told["c"].backlogged


def test_who_waits_now_and_then_and_receives_less_wants_no_more() -> None:
    now = seen(row("a", 90, waiting=9), row("b", 10, waiting=1))
    told = by_name(what_if(now, {}, Change("client", "b", 5.0)))
    assert told["b"].after_per_s == 10
    greedy = by_name(what_if(now, {}, Change("client", "b", 4.0, greedy=True)))
    assert greedy["b"].after_per_s == 80
    fcfs = by_name(what_if(dataclasses.replace(now, policy="fcfs"), {}, Change("client", "b", 4.0)))
    assert fcfs["b"].after_per_s == 80  # there, receiving less does not mean wanting less


def test_a_group_s_weight_moves_service_between_groups() -> None:
    acme, zen = (GroupRow(name, 1.0, 0.0, 1, 1, Rates(50)) for name in ("acme", "zen"))
    now = seen(
        row("a", 50, waiting=1, group="acme"),
        row("z", 50, waiting=1, group="zen"),
        groups=(acme, zen),
    )
    told = by_name(what_if(now, {}, Change("group", "acme", 4.0)))
    assert (told["a"].after_per_s, told["acme"].after_per_s) == (80, 80)
    assert (told["z"].after_per_s, told["zen"].before_per_s) == (20, 50)


def test_weights_move_service_within_a_class_and_classes_keep_their_order() -> None:
    names = ("class:high", "class:high/acme", "class:high/zen", "class:low", "class:low/acme")
    rates = (80, 40, 40, 20, 20)
    groups = (GroupRow(n, 1.0, 0.0, 1, 1, Rates(r)) for n, r in zip(names, rates, strict=True))
    now = seen(
        row("a", 40, waiting=1, group="class:high/acme"),
        row("z", 40, waiting=1, group="class:high/zen"),
        row("n", 20, waiting=1, group="class:low/acme"),
        groups=tuple(groups),
    )
    floors = {"class:high/": 0.0, "class:low/": 0.2}
    told = by_name(what_if(now, {}, Change("group", "acme", 3.0), floors))
    after = {name: told[name].after_per_s for name in ("a", "z", "n")}
    assert after == {"a": 60, "z": 20, "n": 20}


def test_clients_without_a_row_are_one_for_each_group() -> None:
    acme = GroupRow("acme", 1.0, 0.0, 1, 1, Rates(60))
    rest = Others(clients=50, waiting=5, running=9, rates=Rates(50))
    now = seen(
        row("a", 30, waiting=1, group="acme"),
        row("b", 20, waiting=1),
        groups=(acme,),
        others=rest,
    )
    told = by_name(what_if(now, {}, Change("client", "a", 3.0)))
    others = [share for share in told.values() if share.kind == "others"]
    assert {(share.group, share.now_per_s) for share in others} == {("acme", 30), ("", 20)}
    assert told["a"].before_per_s == pytest.approx(16.67, abs=0.01)
    assert told["a"].after_per_s == pytest.approx(25, abs=0.01)


def test_a_client_that_wants_nothing_now() -> None:
    now = seen(row("a", 100, waiting=1))
    idle = by_name(what_if(now, {"idle": 1.0}, Change("client", "idle", 3.0)))
    assert idle["idle"].after_per_s == 0
    greedy = by_name(what_if(now, {"idle": 1.0}, Change("client", "idle", 3.0, greedy=True)))
    assert (greedy["idle"].before_per_s, greedy["idle"].after_per_s) == (50, 75)
