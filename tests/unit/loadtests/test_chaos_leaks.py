"""What is left of a load that has ended."""

from loadtests.chaos.leaks import Leftovers, busy_clients, leaked_keys, missing_slots

PREFIX = "fairlane:9:{tiny}:"


def test_keys_of_requests_and_leases_are_leaks_others_are_not() -> None:
    mine = ["line:alice", "leases:r1", "routed:x", "void:r1", "requests", "arrivals", "unseen"]
    fine = ["pool", "clients", "backlogged", "routers", "replicas", "offers", "load", "reasons"]
    keys = [PREFIX + name for name in mine + fine]
    keys += ["fairlane:9:{other}:requests", "fairlane:9:secret:grant-key", "requests"]
    assert leaked_keys(keys, PREFIX) == sorted(mine)


def test_clients_with_anything_waiting_or_running_are_named() -> None:
    rows = [
        {"client": "alice", "waiting": 2, "running": 0, "counter": 5.0},
        {"client": "bob", "waiting": 0, "running": 0, "counter": 9.0},
        {"client": "carol", "waiting": 0, "running": 1, "counter": 0},
    ]
    assert busy_clients(rows) == {"alice": (2, 0), "carol": (0, 1)}


def test_a_slot_that_is_not_on_offer_is_missing() -> None:
    assert missing_slots({"r1": 4, "r2": 9}, 4) == 0
    assert missing_slots({"r1": 1, "r2": 0}, 4) == 7


def test_leftovers_tell_what_they_are() -> None:
    assert not Leftovers()
    assert str(Leftovers()) == "nothing"
    left = Leftovers({"bob": (2, 1)}, ["arrivals", "line:bob"], slots=4)
    assert left
    assert left.count == 4
    assert str(left) == "bob: 2 waiting, 1 running; keys arrivals, line:bob; 4 slots not on offer"
    many = Leftovers(keys=[f"request:{k}" for k in range(9)])
    assert (many.count, str(many).endswith("and 5 more")) == (9, True)
    assert Leftovers(unknown="nobody tells").count == 1
