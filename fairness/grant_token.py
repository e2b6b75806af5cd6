"""What a router shows a replica: "the global queue has given this request its turn, with you".

A token is signed with a key that only routers and replicas know, names one replica, and expires.
The replica accepts each lease once. So neither a client nor another process on the network can
use a replica's port, and a captured token is worth nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import asdict, dataclass

from fairness.groups import Group

HEADER = "x-fairlane-grant"


class InvalidTokenError(Exception):
    """The token is missing, forged, for someone else, or too old. The message says which."""


@dataclass(frozen=True, slots=True)
class GrantToken:
    """The content of a token.

    lease: empty for a pass, which may use nothing of the engine (models, tokenize).
    weight, counter, groups: the client's, for the order inside the batch. priority: the request's,
    in its client's line there. price: how many times its service is what its tokens cost. expires:
    Unix seconds.
    """

    lease: str
    client: str
    replica: str
    expires: float
    weight: float = 1.0
    counter: float = 0.0
    priority: int = 0
    groups: tuple[Group, ...] = ()
    price: float = 1.0

    def encode(self, key: bytes) -> str:
        """Sign; about 15 microseconds."""
        body = base64.urlsafe_b64encode(json.dumps(asdict(self)).encode())
        return f"{body.decode()}.{_mac(key, body)}"

    @classmethod
    def decode(cls, text: str, key: bytes, replica: str, now: float) -> GrantToken:
        """Check and read a token. Raises InvalidTokenError."""
        body, _, mac = text.partition(".")
        if not hmac.compare_digest(_mac(key, body.encode()).encode(), mac.encode()):
            raise InvalidTokenError("this grant was not signed by a router of this deployment")
        try:
            fields = json.loads(base64.urlsafe_b64decode(body))
            fields["groups"] = tuple(Group(*group) for group in fields["groups"])
            token = cls(**fields)
        except (binascii.Error, ValueError, TypeError, KeyError) as error:
            raise InvalidTokenError(f"unreadable grant: {error}") from error
        if token.replica != replica:
            raise InvalidTokenError("this grant is for another replica")
        if token.expires < now:
            raise InvalidTokenError("this grant has expired; compare the clocks of the machines")
        return token


def _mac(key: bytes, body: bytes) -> str:
    return hmac.new(key, body, hashlib.sha256).hexdigest()
