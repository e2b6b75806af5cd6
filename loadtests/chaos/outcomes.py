"""What became of a request: every one must end, with an answer or a clear error."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from loadtests.driver import RequestRecord


class Outcome(enum.Enum):
    """How a request ended.

    ANSWERED: whole. REFUSED: with an error of OpenAI's shape, as a status or in the stream.
    CUT: its connection broke, where the scenario allows for that. LOST: none of these; it hung
    past its deadline, or ended with neither an answer nor a clear error. LEFT: its client hung up,
    as planned.
    """

    ANSWERED = "answered"
    REFUSED = "refused"
    CUT = "cut"
    LOST = "lost"
    LEFT = "left"


@dataclass(frozen=True, slots=True)
class CutsAllowed:
    """Connections may break in ``(start, end]``, seconds in the run: the router they were on died.

    It takes no more than the streams that were open then: a request sent later has no excuse.
    """

    start: float
    end: float

    def covers(self, record: RequestRecord) -> bool:
        """Whether the fault excuses that this request's connection broke."""
        if record.sent is None or record.ended is None:
            return False
        return record.sent <= self.end and self.start < record.ended <= self.end


def outcome(
    record: RequestRecord, *, leavers: Collection[str] = (), cuts: CutsAllowed | None = None
) -> Outcome:
    """Classify one request. ``leavers``: names whose clients hang up on purpose.

    A client of any other name hangs up only when its patience is over (`Client.abort_after_s`)
    or the run is: then the request is lost.
    """
    if record.aborted or record.ended is None:
        return Outcome.LEFT if record.aborted and record.client in leavers else Outcome.LOST
    if record.done:
        return Outcome.ANSWERED
    if record.error_type is not None:
        return Outcome.REFUSED
    return Outcome.CUT if cuts is not None and cuts.covers(record) else Outcome.LOST


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How many requests ended how, and what the lost, cut and refused ones complained of."""

    counts: Counter[Outcome]
    complaints: Counter[str]

    @property
    def requests(self) -> int:
        """All of them."""
        return self.counts.total()

    def of(self, kind: Outcome) -> int:
        """Number of requests that ended so."""
        return self.counts[kind]


def tally(
    records: Iterable[RequestRecord],
    *,
    leavers: Collection[str] = (),
    cuts: CutsAllowed | None = None,
) -> Outcomes:
    """Classify every request."""
    counts: Counter[Outcome] = Counter()
    complaints: Counter[str] = Counter()
    for record in records:
        kind = outcome(record, leavers=leavers, cuts=cuts)
        counts[kind] += 1
        if kind in (Outcome.REFUSED, Outcome.CUT, Outcome.LOST):
            complaints[f"{kind.value}: {record.error or 'no end before the deadline'}"] += 1
    return Outcomes(counts, complaints)


@dataclass(frozen=True, slots=True)
class Refusals:
    """Of the requests sent while a fail-closed application had no store.

    refused: with 503 and Retry-After, quickly. wrong: ended in any other way.
    """

    refused: int
    wrong: int


def refusals_in(
    records: Iterable[RequestRecord], start: float, end: float, *, quick_s: float
) -> Refusals:
    """Judge requests sent in ``[start, end]``: each must get a clear 503 within ``quick_s``."""
    refused = wrong = 0
    for record in records:
        if record.sent is None or not start <= record.sent <= end:
            continue
        quick = record.ended is not None and record.ended - record.sent <= quick_s
        clear = record.error_type is not None and record.retry_after is not None
        if record.status == 503 and quick and clear:
            refused += 1
        else:
            wrong += 1
    return Refusals(refused, wrong)
