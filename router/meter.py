"""What the request path tells of itself. This one does not listen; `metrics.py` does."""

from __future__ import annotations


class Meter:
    """Told once a request, never once a token. Each word costs microseconds."""

    def waited(self, pool: str, seconds: float) -> None:
        """A request's turn has come."""

    def first_token(self, pool: str, seconds: float) -> None:
        """A stream has begun, so long after its request came into the queue."""

    def ended(self, pool: str, outcome: str) -> None:
        """A request for the engine is over: ok, rejected, failed, gone or refused."""

    def refused(self, reason: str) -> None:
        """The router has refused a request. reason: one of a fixed set."""
