"""Priority classes on every store: strict order, floors, and what carries the class along."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from fairness.classes import Classes, ServiceClass
from fairness.groups import Group
from fairness.store.contract import QueueSettings, Usage
from tests.integration.stores import Pool, opened

pytestmark = pytest.mark.integration

CLASSES = Classes((ServiceClass("high"), ServiceClass("mid", 0.2), ServiceClass("low", 0.0)))
USED = Usage(10, 0, 20)


@pytest_asyncio.fixture
async def classed(store: str | None) -> AsyncIterator[Pool]:
    async with opened(store, QueueSettings(classes=CLASSES)) as pool:
        yield pool


async def submit(pool: Pool, name: str, count: int, *groups: Group) -> None:
    for _ in range(count):
        request = f"{name}-{len(pool.submitted):03}"
        await pool.submit(request, f"of {name}", groups=CLASSES.put(name, groups))


async def serve(pool: Pool, first: int, last: int) -> list[str]:
    """One at a time; the classes served."""
    order = []
    for turn in range(first, last + 1):
        await pool.offer(limit=turn)
        (grant,) = await pool.reconcile_all()
        order.append(grant.request.partition("-")[0])
        await pool.report("settle", grant.lease, USED)
    return order


async def test_order_is_strict_but_for_the_floor(classed: Pool) -> None:
    for name in ("low", "mid", "high"):
        await submit(classed, name, 30)
    assert Counter(await serve(classed, 1, 30)) == {"high": 24, "mid": 6}
    rest = await serve(classed, 31, 90)
    assert rest[-30:] == ["low"] * 30, "the last class has no floor"
    assert await classed.leftovers() == []


async def test_a_grant_names_the_class_and_the_groups_in_it(classed: Pool) -> None:
    await submit(classed, "mid", 1, Group("acme/", 2.0))
    await classed.submit("of nobody", "stranger")
    await classed.offer(limit=2)
    groups = {
        grant.request: [(group.name, group.weight) for group in grant.groups]
        for grant in await classed.reconcile_all()
    }
    assert groups == {
        "mid-000": [("class:mid/", 1.0), ("class:mid/acme/", 2.0)],
        "of nobody": [("class:high/", 1.0)],
    }


async def test_shadow_tells_whom_vtc_with_classes_would_have_chosen(classed: Pool) -> None:
    await classed.set_policy("shadow", "test")
    await submit(classed, "low", 5)
    await submit(classed, "high", 5)
    assert await serve(classed, 1, 5) == ["low"] * 5
    clients = (await classed.queue.shadow()).clients
    assert (clients["of low"].went_ahead, clients["of high"].passed_over) == (5, 5)
