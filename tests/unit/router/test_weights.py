"""Weights for those who watch: the configuration's, else the directory's, asked for seldom."""

from __future__ import annotations

from typing import Any, cast

from router.clients import Client, Configured
from router.directory.directory import Directory
from router.directory.records import ClientRecord
from router.weights import FRESH_S, LOOKUPS, Weights


class Store:
    """Knows everybody whose name begins with a d; counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    async def clients(self, names: list[str]) -> dict[str, ClientRecord]:
        self.asked.append(names)
        return {name: ClientRecord(name, 3.0) for name in names if name.startswith("d")}


class Held:
    def __init__(self) -> None:
        self.configured = Configured((Client("alice", 2.0),))
        self.store = Store()


async def test_each_is_asked_for_once_in_a_while() -> None:
    held, now = Held(), [0.0]
    weights = Weights(cast(Directory, cast(Any, held)), lambda: now[0])
    for _ in range(2):
        found = await weights(["alice", "dora"])
        assert (found["alice"], found["dora"]) == (2.0, 3.0)
    assert held.store.asked == [["dora"]]
    now[0] += FRESH_S
    await weights(["dora"])
    assert held.store.asked == [["dora"], ["dora"]]


async def test_strangers_have_none_and_many_are_asked_for_in_turns() -> None:
    held = Held()
    weights = Weights(cast(Directory, cast(Any, held)), lambda: 0.0)
    names = [f"d{number}" for number in range(LOOKUPS + 5)]
    assert "stranger" not in await weights(["stranger"])
    assert len(await weights(names)) == LOOKUPS + 1  # and alice
    assert len(await weights(names)) == LOOKUPS + 5 + 1
