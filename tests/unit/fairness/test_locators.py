"""Finding the owner of a slot although some nodes are gone and others do not know better."""

from __future__ import annotations

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from fairness.store.address import Host, parse
from fairness.store.contract import StoreUnavailableError
from fairness.store.locators import SlotOwner
from fairness.store.settings import StoreSettings

Ranges = list[tuple[int, int, Host]]
A, B, C = ("a", 6379), ("b", 6379), ("c", 6379)
ALL = 16383


class FakeCluster(SlotOwner):
    """What each node says about the slots; a node that is not there says nothing."""

    def __init__(self, url: str, says: dict[Host, Ranges]) -> None:
        super().__init__(parse(url), StoreSettings(url))
        self.says = says

    async def _slot_map(self, host: Host) -> Ranges:
        if host not in self.says:
            raise RedisConnectionError("refused")
        return self.says[host]

    async def owner(self, key: str = "k") -> str:
        return (await self.locate(key)).host


async def test_the_owner_of_the_key_s_slot() -> None:
    halves = [(0, 8191, A), (8192, ALL, B)]
    located = FakeCluster("redis+cluster://a", {A: halves})
    assert await located.owner("{b}x") == "a"  # slot 3300
    assert await located.owner("{a}x") == "b"  # slot 15495
    assert (await located.locate("{a}x")) == (await located.locate("{a}y"))


async def test_a_node_with_an_old_map_does_not_have_the_last_word() -> None:
    located = FakeCluster("redis+cluster://a,b", {A: [(0, ALL, C)], B: [(0, ALL, B)]})
    assert await located.owner() == "c"  # as before the slot moved
    assert await located.owner() == "b"


async def test_nodes_heard_of_replace_seeds_that_are_gone() -> None:
    located = FakeCluster("redis+cluster://a", {A: [(0, 99, B), (100, ALL, C)]})
    assert await located.owner() == "c"
    located.says = {B: [(0, ALL, B)]}
    assert await located.owner() == "b"


async def test_when_nobody_tells_each_one_s_reason_is_given() -> None:
    located = FakeCluster("redis+cluster://:hunter2@a,b", {B: [(0, 1, B)]})
    with pytest.raises(StoreUnavailableError, match=r"a:6379: refused; b:6379: nobody owns") as it:
        await located.owner()
    assert "hunter2" not in str(it.value)
