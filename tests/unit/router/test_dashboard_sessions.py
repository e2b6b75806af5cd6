"""Sessions of the dashboard: who holds one, for how long, and what ends it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.clients import hash_key, key_id
from router.dashboard.sessions import Sessions, cookie_of, set_cookie
from router.dashboard.throttle import ORIGINS, Throttle

ONE, TWO = hash_key("sk-one"), hash_key("sk-two")


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def sessions(*hashes: str, secret: bytes = b"k", clock: Clock | None = None) -> Sessions:
    return Sessions(lambda: secret, hashes or (ONE, TWO), 3600, clock or Clock())


def begun(of: Sessions, key: str = "sk-one") -> str:
    found = of.begin(key)
    assert found is not None
    return found[1]


def test_a_session_holds_on_every_router_that_has_the_secret() -> None:
    value = begun(sessions())
    session = sessions().check(value)
    assert session is not None
    assert (session.admin, session.expires) == (key_id(ONE), 1_003_600)
    assert session.csrf not in value
    assert begun(sessions()) != value


def test_only_admin_keys_begin_one() -> None:
    assert sessions().begin("sk-three") is None
    assert sessions().begin("") is None


def test_what_ends_it() -> None:
    clock = Clock()
    value = begun(sessions(clock=clock))
    assert sessions(TWO).check(value) is None  # its admin key is not configured any more
    assert sessions(secret=b"another").check(value) is None
    clock.now += 3599
    assert sessions(clock=clock).check(value)
    clock.now += 1
    assert sessions(clock=clock).check(value) is None


@given(st.data())
def test_a_changed_cookie_is_none(data: st.DataObject) -> None:
    value = begun(sessions())
    at = data.draw(st.integers(0, len(value) - 1))
    other = data.draw(st.characters().filter(lambda one: one != value[at]))
    assert sessions().check(value[:at] + other + value[at + 1 :]) is None


@pytest.mark.parametrize(
    "value", ["", ".", "....", "1.a.b.c.d", "é" * 10, "1" * 10_000, "1.a..x.y"]
)
def test_what_is_no_session(value: str) -> None:
    assert sessions().check(value) is None


def test_cookies() -> None:
    value = begun(sessions())
    told = set_cookie(value, 60, secure=True)
    assert {"HttpOnly", "SameSite=Strict", "Secure", "Path=/dashboard"} <= set(told.split("; "))
    assert "Secure" not in set_cookie(value, 60, secure=False)
    assert cookie_of(f"theme=dark; {told.split('; ')[0]}") == value
    assert cookie_of(None) == cookie_of("a=b") == ""


def test_who_fails_to_log_in_has_to_wait() -> None:
    clock = Clock()
    throttle = Throttle(clock)
    for _ in range(10):
        assert throttle.wait_s("here") == 0
        throttle.failed("here")
    assert throttle.wait_s("here") == pytest.approx(6)
    assert throttle.wait_s("elsewhere") == 0
    clock.now += 6.01
    assert throttle.wait_s("here") == 0


def test_many_origins_together_are_held_back_and_few_are_remembered() -> None:
    throttle = Throttle(Clock())
    tries = 0
    while not throttle.wait_s(f"origin-{tries}"):
        throttle.failed(f"origin-{tries}")
        tries += 1
    assert tries == 200
    for n in range(2 * ORIGINS):
        throttle.failed(f"origin-{n}")
    assert len(throttle._origins) == ORIGINS
