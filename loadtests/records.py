"""What a load run recorded of its requests, and the sums one asks for most.

A `RequestRecord` is filled while its request lives (`loadtests.chat`); a `Report` holds all
of a run. Chunks are kept as two flat arrays per request: when each network read arrived and how
many events began in it.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from fairness.measures import PAPER_COST, Delivery, percentiles

LATE_S = 0.05


@dataclass(slots=True)
class RequestRecord:
    """What happened to one request. Times in seconds since the start of the run.

    ``status`` is 0 when no answer came. ``chunk_times[k]`` is when the k-th network read that held
    events arrived, ``chunk_events[k]`` how many began in it. The token counts are the server's own
    (None unless the usage event came). ``aborted`` is true when the driver closed the request.
    ``error_type`` is the type that an error of OpenAI's shape stated, None for any other failure.
    ``cut`` tells, of an aborted request, that the run had ended, and not the client's patience.
    ``number`` is its place in the run in order of sending, from 0.
    """

    client: str
    scheduled: float
    prompt_bytes: int
    sent: float | None = None
    status: int = 0
    ended: float | None = None
    complete: bool = False
    aborted: bool = False
    cut: bool = False
    error: str | None = None
    error_type: str | None = None
    retry_after: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    chunk_times: array[float] = field(default_factory=lambda: array("d"))
    chunk_events: array[int] = field(default_factory=lambda: array("L"))
    number: int = 0

    @property
    def ttft(self) -> float | None:
        """Seconds from sending to the first event; None when none came."""
        if self.sent is None or not self.chunk_times:
            return None
        return self.chunk_times[0] - self.sent

    def inter_token(self) -> Iterator[float]:
        """Yield the mean seconds per token of each network read after the first."""
        reads = zip(self.chunk_times, self.chunk_times[1:], self.chunk_events[1:], strict=False)
        for before, now, tokens in reads:
            yield (now - before) / tokens

    @property
    def lateness(self) -> float:
        """Seconds the driver sent this later than planned."""
        return 0.0 if self.sent is None else self.sent - self.scheduled

    @property
    def done(self) -> bool:
        """Whether the whole answer came."""
        return self.complete and self.error is None

    @property
    def refused(self) -> bool:
        """Whether the server answered with a status that is an error."""
        return self.status >= 400 and not self.aborted

    @property
    def ending(self) -> Literal["done", "refused", "aborted", "failed"]:
        """How it ended; each request in exactly one way."""
        if self.aborted:
            return "aborted"
        if self.refused:
            return "refused"
        return "done" if self.done else "failed"

    @property
    def events(self) -> int:
        """How many events came in all."""
        return sum(self.chunk_events)


@dataclass(frozen=True, slots=True)
class ClientSummary:
    """The numbers of one client in one run.

    Every request is counted once: requests = done + refused + failed + aborted. Tokens include what
    requests received that never ended (`Report.deliveries` says how); ``service`` is
    their cost by `fairness.cost`. TTFT in seconds, None without a first token.
    """

    client: str
    requests: int
    done: int
    refused: int
    failed: int
    aborted: int
    input_tokens: float
    output_tokens: float
    service: float
    ttft_p50: float | None
    ttft_p99: float | None
    lateness_p99: float


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a run: every request, and the sums one asks for most.

    ``started_at`` is Unix time, ``duration_s`` the seconds from the start of the load until its
    last request had ended or was closed.
    """

    started_at: float
    duration_s: float
    records: tuple[RequestRecord, ...]

    def clients(self) -> list[str]:
        """Return the names of the clients that meant to send something, sorted."""
        return sorted({record.client for record in self.records})

    def of(self, client: str) -> list[RequestRecord]:
        """Return the requests of one client in the order they were planned."""
        return [record for record in self.records if record.client == client]

    def deliveries(self) -> list[Delivery]:
        """Return what each client received when, in order of time.

        A request's input tokens count when its first event arrives, its output tokens spread
        evenly over its events. A request without a usage event counts one output token per event
        after the first (which carries the role) and as many input tokens per prompt byte as the
        finished requests had.
        """
        per_byte = _input_tokens_per_byte(self.records)
        made = [d for record in self.records for d in _deliveries_of(record, per_byte)]
        return sorted(made, key=lambda delivery: delivery.time)

    def summary(self, client: str) -> ClientSummary:
        """Sum up one client; see `ClientSummary`."""
        return self.summaries([client])[0]

    def summaries(self, clients: Iterable[str] | None = None) -> list[ClientSummary]:
        """Sum up every client, or those named, in this order."""
        received: dict[str, list[Delivery]] = {}
        for delivery in self.deliveries():
            received.setdefault(delivery.client, []).append(delivery)
        names = self.clients() if clients is None else clients
        return [_summary(name, self.of(name), received.get(name, [])) for name in names]

    @property
    def output_tokens(self) -> int:
        """Output tokens by the server's own count, of requests that ended."""
        return sum(record.output_tokens or 0 for record in self.records)

    @property
    def output_tokens_per_s(self) -> float:
        """Output tokens of ended requests per second of the run."""
        return self.output_tokens / self.duration_s if self.duration_s > 0 else 0.0

    @property
    def fell_behind(self) -> bool:
        """Whether one request in a hundred left more than LATE_S seconds late.

        Such a run says more about the driver's machine than about the server.
        """
        lateness = [record.lateness for record in self.records]
        return bool(lateness) and percentiles(lateness, (99,))[0] > LATE_S

    def errors(self) -> Counter[str]:
        """Return the distinct complaints and how often each was heard."""
        return Counter(record.error for record in self.records if record.error)


def _input_tokens_per_byte(records: Iterable[RequestRecord]) -> float:
    known = [r for r in records if r.input_tokens is not None]
    prompt_bytes = sum(record.prompt_bytes for record in known)
    return sum(r.input_tokens or 0 for r in known) / prompt_bytes if prompt_bytes else 0.0


def _deliveries_of(record: RequestRecord, input_per_byte: float) -> Iterator[Delivery]:
    events = record.events
    if not events or record.refused:
        return
    input_tokens: float = record.prompt_bytes * input_per_byte
    if record.input_tokens is not None:
        input_tokens = record.input_tokens
    output_tokens = events - 1 if record.output_tokens is None else record.output_tokens
    for time_s, count in zip(record.chunk_times, record.chunk_events, strict=True):
        yield Delivery(time_s, record.client, input_tokens, output_tokens * count / events)
        input_tokens = 0.0


def _summary(name: str, records: list[RequestRecord], received: list[Delivery]) -> ClientSummary:
    ttfts = [record.ttft for record in records if record.ttft is not None]
    p50, p99 = percentiles(ttfts, (50, 99)) if ttfts else (None, None)
    done = sum(record.done for record in records)
    refused = sum(record.refused for record in records)
    aborted = sum(record.aborted for record in records)
    input_tokens = sum(delivery.input_tokens for delivery in received)
    output_tokens = sum(delivery.output_tokens for delivery in received)
    return ClientSummary(
        client=name,
        requests=len(records),
        done=done,
        refused=refused,
        failed=len(records) - done - refused - aborted,
        aborted=aborted,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        service=PAPER_COST.of(input_tokens, output_tokens),
        ttft_p50=p50,
        ttft_p99=p99,
        lateness_p99=percentiles([r.lateness for r in records], (99,))[0] if records else 0.0,
    )
