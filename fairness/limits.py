"""Limits of a level: a client, or a group that it stands in.

Theory. A request is **reserved** at every limited level when it is submitted, or refused at once
and reserved nowhere. What it has reserved is **settled** once, when it ends, whatever ends it.

- *Rates* (requests and tokens a minute) are token buckets: each holds one minute's worth and is
  refilled continuously. What is kept is what was **spent**, which falls with time; a reservation
  adds to it, a settlement corrects it. So over any interval no more is spent than one minute's
  worth and what the interval refills, but for estimates that were too low: those are a debt, paid
  by waiting.
- *Counts* (in flight, queued, bytes queued) rise at the submit and fall when it leaves.

How many tokens a request takes is not known before it ends. Reserved is an estimate: the input by
the pool's tokens a byte, the output by what the pool's requests make on average, or by what the
request allows itself if that is less. (What requests allow themselves is often many times what they
use: to reserve that would refuse work for which there is room. As estimates are settled, it is only
the moment that they can get wrong, not the sum.) A request that needs more than a minute's worth is
let in when the bucket is full; else it could never be.

The stores apply this (`fairness/store/memory_limits.py`, `lua/limits.lua`); here are its values.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

MINUTE_MS = 60_000
SLACK = 1e-6  # of a request or token: sums of fractions are not exact
COUNT_RETRY_MS = 1_000  # nobody knows when a count will fall

RATES = ("requests_per_minute", "tokens_per_minute")
NAMES = (*RATES, "concurrency", "queued_requests", "queued_bytes")


class Limits(NamedTuple):
    """What one level may do in one pool; None: any number.

    concurrency: requests in flight, waiting or running. max_wait_s: in the queue; the router heeds
    it, the store does not.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    queued_requests: int | None = None
    queued_bytes: int | None = None
    max_wait_s: float | None = None

    @property
    def in_store(self) -> tuple[int, ...]:
        """Those that the store applies, in the order of `NAMES`; 0 for none."""
        return tuple(limit or 0 for limit in self[:5])

    def given(self) -> dict[str, float]:
        """Those that are set, by name."""
        return {name: limit for name, limit in self._asdict().items() if limit is not None}


NO_LIMITS = Limits()


class Terms(NamedTuple):
    """On which a request is submitted.

    levels: limits of the client, then of its groups, the outermost first. max_output: tokens that
    its answer may have at most, None: it does not say. admitted: it was let in before (and the
    store has forgotten it): reserve, whatever the limits say.
    """

    levels: tuple[Limits, ...]
    max_output: int | None = None
    admitted: bool = False

    def text(self) -> str:
        """As it travels: max_output (-1: not said), admitted, then five numbers a level."""
        output = -1 if self.max_output is None else self.max_output
        numbers = [output, int(self.admitted)]
        for limits in self.levels:
            numbers += limits.in_store
        return " ".join(map(str, numbers))


class Rate(NamedTuple):
    """A rate as it stands: reset_ms until all of it is there again."""

    limit: int
    remaining: int
    reset_ms: int

    @property
    def reset(self) -> str:
        """As OpenAI writes it: 20ms, 1s, 6m0s."""
        return duration(self.reset_ms)


class Rates(NamedTuple):
    """Of the rates that a request was held against, those with least remaining; as of its
    reservation, itself included. None: no level has such a limit."""

    requests: Rate | None = None
    tokens: Rate | None = None

    @classmethod
    def of(cls, numbers: Iterable[int]) -> Rates:
        """From limit, remaining, reset_ms of either; limit 0: there is none."""
        requests, tokens = (Rate(*rate) for rate in zip(*[iter(numbers)] * 3, strict=True))
        return cls(requests if requests.limit else None, tokens if tokens.limit else None)


class Refusal(NamedTuple):
    """Why a request was not let in: the limit (by its name in `Limits`) of a client or group.

    Of several, the one that takes longest to make room.
    """

    node: str
    name: str
    limit: int
    remaining: int
    retry_after_ms: int


def parse_terms(text: str) -> tuple[int, bool, tuple[tuple[int, ...], ...]]:
    """Read `Terms.text`: max_output (-1: not said), admitted, the five limits of each level."""
    output, admitted, *limits = map(int, text.split())
    return output, bool(admitted), tuple(zip(*[iter(limits)] * 5, strict=True))


def duration(milliseconds: int) -> str:
    """Write a duration as OpenAI does (and Go): 0s, 20ms, 1.5s, 6m0s, 1h0m0s."""
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, MINUTE_MS)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:g}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text
