"""The store's URL: what it means, and what is said about one that can't be read."""

from __future__ import annotations

import pytest

from fairness.store.address import SCHEMES, Address, Kind, parse


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://db", Address(Kind.SERVER, hosts=(("db", 6379),))),
        (
            "rediss://ann:p%40ss%2F@db:7000/3",
            Address(Kind.SERVER, True, (("db", 7000),), db=3, username="ann", password="p@ss/"),
        ),
        ("redis://:pw@[::1]:7000", Address(Kind.SERVER, hosts=(("::1", 7000),), password="pw")),
        ("redis://db?db=2", Address(Kind.SERVER, hosts=(("db", 6379),), db=2)),
        ("unix:///run/my%20store.sock", Address(Kind.UNIX, path="/run/my store.sock")),
        (
            "unix://ann:pw@/run/store.sock?db=1",
            Address(Kind.UNIX, path="/run/store.sock", db=1, username="ann", password="pw"),
        ),
        (
            "redis+sentinel://ann:pw@s1,s2:26380/fair/1",
            Address(
                Kind.SENTINEL,
                hosts=(("s1", 26379), ("s2", 26380)),
                db=1,
                master="fair",
                username="ann",
                password="pw",
            ),
        ),
        (
            "rediss+cluster://n1:7001,[fe80::2],n3",
            Address(Kind.CLUSTER, True, (("n1", 7001), ("fe80::2", 6379), ("n3", 6379))),
        ),
    ],
)
def test_urls(url: str, address: Address) -> None:
    assert parse(url) == address


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://db", "unknown scheme 'http'; use one of redis://, unix://, redis\\+sentinel://"),
        ("db:6379", "not a URL; use one of"),
        ("redis://:hunter2@", "cannot read the hosts"),
        ("redis://:hun/ter2@db", "cannot read the hosts"),
        ("redis://db:hunter2", "cannot read the hosts"),
        ("redis://db/1/2", "after the hosts"),
        ("redis://db/1?db=1", "after the hosts"),
        ("redis://db/hunter2", "is a number"),
        ("redis://a,b", "redis\\+sentinel:// or redis\\+cluster://"),
        ("redis://db?ssl_cert_reqs=none", "unknown option ssl_cert_reqs"),
        ("redis+sentinel://:hunter2@s1,s2", "name the master"),
        ("redis+cluster://n1/1", "only database 0"),
        ("unix://run/store.sock", "three slashes"),
    ],
)
def test_what_is_wrong_is_said_without_the_secret(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as error:
        parse(url)
    assert "hunter2" not in str(error.value)
    assert "ter2" not in str(error.value)


def test_every_kind_over_tcp_has_its_tls_scheme() -> None:
    assert {scheme for scheme, (_, tls) in SCHEMES.items() if tls} == {
        "rediss",
        "rediss+sentinel",
        "rediss+cluster",
    }


def test_no_representation_shows_a_password() -> None:
    assert "hunter2" not in repr(parse("redis://ann:hunter2@db"))
