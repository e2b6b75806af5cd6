"""What clients are told of their limits: headers and errors, as OpenAI's clients expect them."""

from __future__ import annotations

import math

from fairness.groups import is_group
from fairness.limits import Rate, Rates, Refusal, duration
from router.directory.records import organisation_of
from router.errors import ApiError

WHAT = {
    "requests_per_minute": "requests a minute",
    "tokens_per_minute": "tokens a minute (input and output)",
    "concurrency": "requests in flight",
    "queued_requests": "waiting requests",
    "queued_bytes": "bytes of waiting requests",
}


def rate_headers(rates: Rates | None) -> list[tuple[bytes, bytes]]:
    """`x-ratelimit-*` of the tightest level, as of this request's reservation."""
    if rates is None:
        return []
    return _headers(b"requests", rates.requests) + _headers(b"tokens", rates.tokens)


def limit_reached(refusal: Refusal) -> ApiError:
    """429 that says which limit, whose it is, and when to try again."""
    level, name = _level(refusal.node)
    return ApiError(
        429,
        f"the {level} {name!r} has reached its limit of {refusal.limit} {WHAT[refusal.name]} for "
        f"this model ({refusal.remaining} left); try again in {duration(refusal.retry_after_ms)}",
        "rate_limit_error",
        "rate_limit_exceeded",
        retry_after_s=max(1, math.ceil(refusal.retry_after_ms / 1000)),
        details={
            "level": level,
            "name": name,
            "limit": refusal.name,
            "limit_value": refusal.limit,
            "remaining": refusal.remaining,
            "retry_after_ms": refusal.retry_after_ms,
        },
    )


def _level(node: str) -> tuple[str, str]:
    if not is_group(node):
        return "client", node
    name = node[:-1]
    return ("team" if organisation_of(name) else "organisation"), name


def _headers(kind: bytes, rate: Rate | None) -> list[tuple[bytes, bytes]]:
    if rate is None:
        return []
    values = {b"limit": str(rate.limit), b"remaining": str(rate.remaining), b"reset": rate.reset}
    return [(b"x-ratelimit-%s-%s" % (what, kind), text.encode()) for what, text in values.items()]
