"""Priority classes in the configuration."""

from functools import partial
from typing import Any

import pytest

from deployments.config import AppConfig
from deployments.configuration.classes import DEFAULT_FLOOR
from deployments.live import live_settings
from fairness.classes import ServiceClass

POOLS = [{"llm": {"model_loading_config": {"model_id": "tiny"}}}]
CLASSES: list[dict[str, Any]] = [{"name": "interactive"}, {"name": "batch"}]


def config(classes: list[dict[str, Any]], **clients: str | None) -> AppConfig:
    named = [{"name": name, "priority_class": of} for name, of in clients.items()]
    return AppConfig.model_validate({"pools": POOLS, "classes": classes, "clients": named})


def test_without_any_there_are_none() -> None:
    assert not config([]).queue_settings().classes


def test_every_class_but_the_first_has_a_floor_unless_it_says_0() -> None:
    found = config([*CLASSES, {"name": "idle", "floor": 0}]).queue_settings().classes
    assert found.classes == (
        ServiceClass("interactive"),
        ServiceClass("batch", DEFAULT_FLOOR),
        ServiceClass("idle", 0.0),
    )


def test_clients_are_in_the_class_they_name() -> None:
    clients = config(CLASSES, alice="batch", bob=None).configured().clients
    assert [client.priority_class for client in clients] == ["batch", ""]


@pytest.mark.parametrize(
    ("classes", "why"),
    [
        ([{"name": "a", "floor": 0.1}], "the first class goes first"),
        ([{"name": "a"}, {"name": "b", "floor": 0.7}, {"name": "c", "floor": 0.3}], "add up to 1"),
        ([{"name": "a"}, {"name": "a"}], "twice"),
        ([{"name": "a/b"}], "classes"),
        ([{"name": "a"}, {"name": "b", "floor": -1}], "floor"),
        ([{"name": str(n)} for n in range(9)], "classes"),
    ],
)
def test_what_makes_no_sense_is_refused(classes: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        config(classes)


def test_a_client_in_a_class_that_is_not_there_is_refused_in_both_places() -> None:
    with pytest.raises(ValueError, match=r"alice is in the priority class night.*interactive, ba"):
        config(CLASSES, alice="night")
    ours = config(CLASSES, alice="batch")
    live = partial(live_settings, ours.live(), classes=ours.class_names())
    assert live({}).clients.classes == ("interactive", "batch")
    with pytest.raises(ValueError, match=r"bob is in the priority class night"):
        live({"clients": [{"name": "bob", "priority_class": "night"}]})
