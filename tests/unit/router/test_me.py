"""What /me tells of one's own limits and place."""

from __future__ import annotations

from fairness.limits import Limits
from fairness.observe.standing import Place
from router.clients import Client, Group
from router.dashboard.me import ahead, own_limits


def test_places_are_told_by_group_and_the_order_of_classes_is_no_place() -> None:
    plain = (Place("acme", 1, 2), Place("", 0, 3))
    assert ahead(plain) == [
        {"group": "acme", "ahead": 1, "of": 2},
        {"group": "", "ahead": 0, "of": 3},
    ]
    classed = (Place("class:batch/acme", 1, 2), Place("class:batch", 0, 3), Place("", 1, 2))
    assert ahead(classed) == ahead(plain)


def test_limits_are_those_of_the_client_and_of_its_groups() -> None:
    team = Group("acme/ml", limits=Limits(tokens_per_minute=1000))
    client = Client("bob", 1.0, (Group("acme"), team), Limits(concurrency=3))
    assert own_limits(client) == {"bob": {"concurrency": 3}, "acme/ml": {"tokens_per_minute": 1000}}
