"""The embedded store is refused where others could not reach it."""

import pytest

from deployments.embedded_store import StoreFailed
from deployments.one_node import refuse_several


def node(address: str, *, alive: bool = True) -> dict[str, object]:
    return {"NodeManagerAddress": address, "Alive": alive}


def test_one_machine_may_have_it() -> None:
    refuse_several([node("10.0.0.1")])
    refuse_several([node("10.0.0.1"), node("10.0.0.1"), node("10.0.0.2", alive=False)])


def test_several_may_not_and_are_told_what_to_do() -> None:
    with pytest.raises(StoreFailed, match=r"2 nodes: name a Redis or Valkey .* REDIS_URL"):
        refuse_several([node("10.0.0.1"), node("10.0.0.2")])
