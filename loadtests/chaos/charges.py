"""Does the store's account agree with what clients were told? Nothing charged twice, little lost.

A client was *told* the usage of each answer that ended. Of one that broke off it has *seen* some
tokens (at least one in each event, but those that begin and end a stream), and the engine has made
those and perhaps more: anything up to a whole answer *may* be charged. So for each client, and for
input and output tokens apart:

    told + seen - lost  <=  charged  <=  told + may

where *lost* is what a store may forget by failing, or a replica take with it (about a second of
charges). Where nothing broke off and nothing may be lost, that is equality. What exceeds the upper
line was charged twice; it is never excused. The same holds for the counters of the queue
(`/admin/queue/clients`) and for what bills are made of (`/admin/usage`).

A store that came back empty has forgotten its sums as well, unless somebody told it again; which
of the two is what the sum is nearer to. If it forgot, what was charged since is held against the
answers since: for the upper line those that ended after it was emptied, for the lower one those
that were sent after.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from loadtests.driver import RequestRecord

# An answer that ended may be settled so much later (an exchange with the store, and a retry).
SETTLED_S = 2.0
# Events of a stream without a token: the role, an error, [DONE].
EMPTY_EVENTS = 3


class Tokens(NamedTuple):
    """A number of input and of output tokens."""

    input: int = 0
    output: int = 0

    def plus(self, other: Tokens) -> Tokens:
        """Return the sums."""
        return Tokens(self.input + other.input, self.output + other.output)

    def beyond(self, other: Tokens) -> Tokens:
        """Return what this has more than ``other``, each kind by itself."""
        return Tokens(max(0, self.input - other.input), max(0, self.output - other.output))

    @property
    def total(self) -> int:
        """Both kinds."""
        return self.input + self.output


@dataclass(frozen=True, slots=True)
class Account:
    """One client's. ``may``: what its broken-off requests may have made. ``surely``: of what it was
    told and has seen, that which the store has no excuse to have forgotten."""

    told: Tokens
    charged: Tokens
    may: Tokens
    surely: Tokens

    @property
    def excess(self) -> int:
        """Tokens charged twice."""
        return self.charged.beyond(self.told.plus(self.may)).total

    @property
    def missing(self) -> int:
        """Tokens told or seen, and not charged."""
        return self.surely.beyond(self.charged).total


@dataclass(frozen=True, slots=True)
class Audit:
    """The accounts of all clients. One's loss does not make up for another's double charge."""

    accounts: dict[str, Account]

    @property
    def excess(self) -> int:
        """Tokens charged twice."""
        return sum(account.excess for account in self.accounts.values())

    @property
    def missing(self) -> int:
        """Tokens told or seen, and not charged."""
        return sum(account.missing for account in self.accounts.values())

    @property
    def told(self) -> int:
        """Tokens told to anyone."""
        return sum(account.told.total for account in self.accounts.values())


def audit(
    records: Iterable[RequestRecord],
    before: Mapping[str, Tokens],
    after: Mapping[str, Tokens],
    *,
    accounts: Mapping[str, str] | None = None,
    emptied_at: float | None = None,
) -> Audit:
    """Hold the store's sums ``before`` and ``after`` a load against the load's records.

    accounts: the client who pays for a name, where they differ. emptied_at: seconds in the run at
    which the store came back empty.
    """
    everyone = list(records)
    whole = Tokens(
        max((r.input_tokens or 0 for r in everyone), default=0),
        max((r.output_tokens or 0 for r in everyone), default=0),
    )
    least = min((r.input_tokens for r in everyone if r.input_tokens is not None), default=0)
    payer = accounts or {}
    found: dict[str, Account] = {}
    for client in sorted({payer.get(r.client, r.client) for r in everyone} | set(after)):
        mine = [r for r in everyone if payer.get(r.client, r.client) == client]
        first, last = before.get(client, Tokens()), after.get(client, Tokens())
        since = surely = mine
        if emptied_at is not None:
            later = [r for r in mine if (r.ended or 0.0) > emptied_at - SETTLED_S]
            remembered, forgotten = first.plus(_told(mine)).total, _told(later).total
            if last.total < (remembered + forgotten) / 2:
                first, since = Tokens(), later
                surely = [r for r in mine if r.sent is not None and r.sent > emptied_at]
        found[client] = Account(
            told=_told(since),
            charged=Tokens(last.input - first.input, last.output - first.output),
            may=_may(since, whole),
            surely=_told(surely).plus(_seen(surely, least)),
        )
    return Audit(found)


def _told(records: Iterable[RequestRecord]) -> Tokens:
    told = Tokens()
    for record in records:
        if _was_told(record):
            told = told.plus(Tokens(record.input_tokens or 0, record.output_tokens or 0))
    return told


def _seen(records: Iterable[RequestRecord], input_tokens: int) -> Tokens:
    """What broken-off answers have shown, at the least. input_tokens: of the shortest prompt."""
    broken = (r for r in records if not _was_told(r) and not r.refused)
    outputs = [max(0, sum(r.chunk_events) - EMPTY_EVENTS) for r in broken]
    return Tokens(input_tokens * sum(output > 0 for output in outputs), sum(outputs))


def _may(records: Iterable[RequestRecord], whole: Tokens) -> Tokens:
    broken = sum(not _was_told(r) and r.sent is not None and not r.refused for r in records)
    return Tokens(broken * whole.input, broken * whole.output)


def _was_told(record: RequestRecord) -> bool:
    return record.input_tokens is not None and record.output_tokens is not None
