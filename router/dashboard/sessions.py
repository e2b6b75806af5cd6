"""Sessions of the dashboard: a signed cookie says which admin key was shown, and until when.

Nothing is kept: any router can check a session, and it outlives the router that began it. The
signature is made with a key that is derived from the one that signs grants (which all routers have,
and no client) and with the hash of the admin key. So a session ends when its admin key is taken out
of the configuration, and when the store has lost its secrets.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from router.clients import hash_key, key_id

COOKIE = "fairlane_session"
PATH = "/dashboard"
LONGEST = 300  # characters
VERSION = "1"


@dataclass(frozen=True, slots=True)
class Session:
    """admin: id of the admin key. name: tells sessions apart. expires: seconds since 1970.
    csrf: what changes must show in a header; other sites can't read it."""

    admin: str
    name: str
    expires: int
    csrf: str


class Sessions:
    """Begins sessions and checks them; both O(admin keys)."""

    def __init__(
        self,
        secret: Callable[[], bytes],
        admin_hashes: Iterable[str],
        lifetime_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """secret: the key that signs grants, as it is now."""
        self._secret = secret
        self._hashes = tuple(admin_hashes)
        self._lifetime_s = lifetime_s
        self._clock = clock

    def begin(self, key: str) -> tuple[Session, str] | None:
        """The session of an admin key and its cookie's value; None, after the same time, for any
        other key."""
        hashed = hash_key(key)
        if not sum(hmac.compare_digest(hashed, known) for known in self._hashes):
            return None
        expires = int(self._clock() + self._lifetime_s)
        said = f"{VERSION}.{key_id(hashed)}.{expires}.{secrets.token_urlsafe(12)}"
        value = f"{said}.{self._mac('session', said, hashed)}"
        return self._session(value), value

    def check(self, value: str) -> Session | None:
        """The session of a cookie's value; None if there is none, or no more."""
        said, _, mac = value.rpartition(".")
        if len(value) > LONGEST or said.count(".") != 3 or not value.isascii():
            return None
        _, admin, expires, _ = said.split(".")
        for hashed in self._hashes:
            mine = key_id(hashed) == admin
            if mine and hmac.compare_digest(mac, self._mac("session", said, hashed)):
                # What is signed was made by `begin`: it can be read.
                return self._session(value) if self._clock() < int(expires) else None
        return None

    def now(self) -> float:
        """Seconds since 1970, as sessions expire."""
        return self._clock()

    def _session(self, value: str) -> Session:
        _, admin, expires, name, _ = value.split(".")
        return Session(admin, name, int(expires), self._mac("csrf", value, ""))

    def _mac(self, purpose: str, text: str, hashed: str) -> str:
        key = hmac.digest(self._secret(), b"fairlane dashboard " + purpose.encode(), "sha256")
        return hmac.new(key, f"{text}\n{hashed}".encode(), hashlib.sha256).hexdigest()


def cookie_of(header: str | None) -> str:
    """The session's value in a Cookie header; "" without one."""
    for pair in (header or "").split(";"):
        name, _, value = pair.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def set_cookie(value: str, max_age_s: int, *, secure: bool) -> str:
    """A Set-Cookie header; `max_age_s` 0 takes the cookie away."""
    parts = [f"{COOKIE}={value}", f"Path={PATH}", f"Max-Age={max_age_s}", "HttpOnly"]
    return "; ".join([*parts, "SameSite=Strict", *(["Secure"] if secure else [])])
