"""The report of shadow mode as admins read it."""

from fairness.store.shadow import Shadow, ShadowReport, total
from router.admin.shadow import client_view, summary

ONE = ShadowReport(
    2_000,
    {
        "flood": Shadow(9, 6, 0, 60.0, 0.0),
        "mail": Shadow(1, 0, 1, 0.0, 10.0),
        "search": Shadow(2, 0, 5, 0.0, 50.0),
        "level": Shadow(3, 1, 1, 4.0, 4.0),
    },
)


def test_who_would_be_served_sooner_and_later():
    found = summary(ONE)
    assert (found["grants"], found["out_of_turn"]) == (15, 7)
    assert found["share"] == 7 / 15
    assert found["since"] == "1970-01-01T00:00:02+00:00"
    assert [row["client"] for row in found["sooner"]] == ["search", "mail"]
    assert found["later"] == [{"client": "flood", "service": 60.0}]
    assert client_view(ONE, "mail")["passed_over"] == 1
    assert client_view(ONE, "unheard of")["grants"] == 0


def test_pools_add_up_and_one_that_never_was_in_shadow_counts_for_nothing():
    other = ShadowReport(1_000, {"search": Shadow(1, 1, 0, 7.0, 0.0)})
    both = total([ONE, ShadowReport(0, {}), other])
    assert both.since == 1_000
    assert both.clients["search"] == Shadow(3, 1, 5, 7.0, 50.0)
    assert ONE.clients["search"] == Shadow(2, 0, 5, 0.0, 50.0)


def test_without_shadow_mode_there_is_nothing_to_say():
    never = total([ShadowReport(0, {})])
    assert summary(never) is None
    assert client_view(never, "alice") is None


def test_only_so_many_are_named():
    many = {f"c{n:03}": Shadow(1, 0, n, 0.0, float(n)) for n in range(1, 40)}
    named = summary(ShadowReport(1, many))["sooner"]
    assert [row["service"] for row in named] == [float(n) for n in range(39, 29, -1)]
