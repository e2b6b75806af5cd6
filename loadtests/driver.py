"""Drive an OpenAI-style HTTP server with several clients at once and record what each received.

**Open loop** (`OpenLoop`): requests leave at the arrival times of the workload, whatever happens
to earlier ones; a slow server meets a growing crowd, as in life. If the driver itself falls behind
that is seen and not hidden: each record has its ``lateness``, and the report says whether the
run can be trusted (`Report.fell_behind`). **Closed loop** (`ClosedLoop`): a number of connections,
each with one request open at all times; a refused one waits as long as the answer's Retry-After
says before it asks again.

What a chunk costs decides how much load one process can make, so chunks are counted, not read
(`loadtests.sse`). A request's true token counts come from the usage event at its end. A request
that was cut before has counted events instead: one event is about one token.

Everything a run starts is bounded: by its duration, by the number of requests, by the number of
open connections; it aims at this machine unless told otherwise. At the deadline the requests still
open are closed, which a server must notice; when the caller is cancelled the same happens.

    report = await run("http://127.0.0.1:8000", [Client("alice", "key", ClosedLoop(8))], 30)
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import json
import secrets
import time
from array import array
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from fairness.measures import PAPER_COST, Delivery, percentiles
from loadtests.sse import EventCounter, openai_error_type

CHAT_PATH = "/v1/chat/completions"
LATE_S = 0.05
_WORDS = b"the quick brown fox jumps over the lazy dog and naps "


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """Keep ``concurrency`` requests open at all times, at most ``requests`` in total."""

    concurrency: int
    requests: int | None = None


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """Send a request at each of these times, in seconds after the client's start, rising."""

    arrivals: tuple[float, ...]

    @classmethod
    def every(cls, interval_s: float, until_s: float) -> OpenLoop:
        """Send a request every ``interval_s`` seconds from 0 on, the last before ``until_s``."""
        rising = (k * interval_s for k in itertools.count())
        return cls(tuple(itertools.takewhile(lambda at: at < until_s, rising)))


@dataclass(frozen=True, slots=True)
class Client:
    """One client's load: who, how often, what.

    Several clients may have the same ``name``: their requests are reported together, as a tenant
    that changes its habits or uses several keys. The client sends from ``start_s`` until
    ``stop_s`` (seconds in the run; its open requests may end later). Each prompt has
    ``prompt_bytes`` bytes and a beginning of its own, so that no prefix is shared, unless
    ``shared_prompt``. ``abort_after_events`` hangs up after that many events, ``abort_after_s``
    after so many seconds, whatever came.
    """

    name: str
    api_key: str | None
    workload: ClosedLoop | OpenLoop
    prompt_bytes: int = 256
    max_tokens: int = 96
    ignore_eos: bool = True
    start_s: float = 0.0
    stop_s: float | None = None
    shared_prompt: bool = False
    abort_after_events: int | None = None
    abort_after_s: float | None = None


@dataclass(slots=True)
class RequestRecord:
    """What happened to one request. Times in seconds since the start of the run.

    ``status`` is 0 when no answer came. ``chunk_times[k]`` is when the k-th network read that held
    events arrived, ``chunk_events[k]`` how many began in it. The token counts are the server's own
    (None unless the usage event came). ``aborted`` is true when the driver closed the request.
    ``error_type`` is the type that an error of OpenAI's shape stated, None for any other failure.
    """

    client: str
    scheduled: float
    prompt_bytes: int
    sent: float | None = None
    status: int = 0
    ended: float | None = None
    complete: bool = False
    aborted: bool = False
    error: str | None = None
    error_type: str | None = None
    retry_after: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    chunk_times: array[float] = field(default_factory=lambda: array("d"))
    chunk_events: array[int] = field(default_factory=lambda: array("L"))

    @property
    def ttft(self) -> float | None:
        """Seconds from sending to the first event; None when none came."""
        if self.sent is None or not self.chunk_times:
            return None
        return self.chunk_times[0] - self.sent

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


@dataclass(frozen=True, slots=True)
class Progress:
    """A run at one moment. ``open`` and ``done`` are numbers of requests by client name."""

    elapsed_s: float
    open: Counter[str]
    done: Counter[str]


async def run(
    base_url: str,
    clients: Sequence[Client],
    duration_s: float,
    *,
    model: str | None = None,
    nonce: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    request_limit: int = 100_000,
    open_limit: int = 4096,
    allow_remote: bool = False,
) -> Report:
    """Drive ``base_url`` with ``clients`` for at most ``duration_s`` seconds.

    Ends earlier when every workload has ended and all answers are in. ``model`` is the first one
    the server lists by default. ``nonce`` opens every prompt that is not shared: runs with
    different ones share no prefix (random by default). ``on_progress`` is called four times a
    second and must be quick. Requests beyond ``request_limit`` per run are not made; those beyond
    ``open_limit`` open ones are recorded as errors and not sent.

    Raises ValueError when the URL is not of this machine and ``allow_remote`` is false, and
    aiohttp.ClientError when the list of models was asked for and did not come.
    """
    if not allow_remote:
        require_loopback(base_url)
    async with _session(open_limit) as session:
        if model is None:
            model = await first_model(session, base_url, clients[0].api_key)
        driver = _Driver(
            session=session,
            url=base_url.rstrip("/") + CHAT_PATH,
            model=model,
            nonce=secrets.token_hex(4) if nonce is None else nonce,
            request_limit=request_limit,
            open_limit=open_limit,
        )
        return await driver.drive(clients, duration_s, on_progress)


def require_loopback(base_url: str) -> None:
    """Raise ValueError unless the URL's host is this machine, by its loopback address."""
    host = urlsplit(base_url).hostname or ""
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return
    if host != "localhost":
        raise ValueError(
            f"{base_url!r} is not a loopback address; "
            "to load another machine that is yours, pass allow_remote=True"
        )


async def first_model(session: aiohttp.ClientSession, base_url: str, api_key: str | None) -> str:
    """Return the name of the first model the server lists. Raises aiohttp.ClientError."""
    url = base_url.rstrip("/") + "/v1/models"
    async with session.get(url, headers=_headers(api_key)) as answer:
        answer.raise_for_status()
        listed = await answer.json()
    return str(listed["data"][0]["id"])


@contextlib.asynccontextmanager
async def _session(open_limit: int) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=open_limit + 16)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield session


class _Driver:
    """One run. Its tasks live in one TaskGroup, which holds, awaits and cancels all of them."""

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession,
        url: str,
        model: str,
        nonce: str,
        request_limit: int,
        open_limit: int,
    ) -> None:
        self._session = session
        self._url = url
        self._model = model
        self._nonce = nonce
        self._open_limit = open_limit
        self._numbers = iter(range(request_limit))
        self._records: list[RequestRecord] = []
        self._open: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._zero = 0.0

    async def drive(
        self,
        clients: Sequence[Client],
        duration_s: float,
        on_progress: Callable[[Progress], None] | None,
    ) -> Report:
        started_at = time.time()
        self._zero = time.perf_counter()
        watcher = asyncio.create_task(self._watch(on_progress)) if on_progress else None
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(duration_s), asyncio.TaskGroup() as tasks:
                    for client in clients:
                        tasks.create_task(self._source(client, tasks))
        finally:
            if watcher is not None:
                watcher.cancel()
                await asyncio.gather(watcher, return_exceptions=True)
        return Report(started_at, self._now(), tuple(self._records))

    def _now(self) -> float:
        return time.perf_counter() - self._zero

    async def _watch(self, on_progress: Callable[[Progress], None]) -> None:
        while True:
            on_progress(Progress(self._now(), +self._open, self._done.copy()))
            await asyncio.sleep(0.25)

    async def _source(self, client: Client, tasks: asyncio.TaskGroup) -> None:
        await self._sleep_until(client.start_s)
        if isinstance(client.workload, OpenLoop):
            await self._arrivals(client, client.workload, tasks)
        else:
            self._connections(client, client.workload, tasks)

    async def _arrivals(self, client: Client, load: OpenLoop, tasks: asyncio.TaskGroup) -> None:
        for arrival in load.arrivals:
            at = client.start_s + arrival
            if client.stop_s is not None and at >= client.stop_s:
                return
            await self._sleep_until(at)
            number = next(self._numbers, None)
            if number is None:
                return
            tasks.create_task(self._request(client, at, number))

    def _connections(self, client: Client, load: ClosedLoop, tasks: asyncio.TaskGroup) -> None:
        turns = itertools.count() if load.requests is None else iter(range(load.requests))
        for _ in range(load.concurrency):
            tasks.create_task(self._connection(client, turns))

    async def _connection(self, client: Client, turns: Iterator[int]) -> None:
        while client.stop_s is None or self._now() < client.stop_s:
            if next(turns, None) is None:
                return
            number = next(self._numbers, None)
            if number is None:
                return
            record = await self._request(client, self._now(), number)
            if not record.done and not record.aborted:
                wait = 0.5 if record.retry_after is None else record.retry_after
                await asyncio.sleep(min(max(wait, 0.05), 5.0))

    async def _sleep_until(self, at: float) -> None:
        wait = at - self._now()
        if wait > 0:
            await asyncio.sleep(wait)

    async def _request(self, client: Client, scheduled: float, number: int) -> RequestRecord:
        record = RequestRecord(client.name, scheduled, client.prompt_bytes)
        self._records.append(record)
        if self._open.total() >= self._open_limit:
            record.error = f"not sent: the driver has {self._open_limit} requests open"
            return record
        self._open[client.name] += 1
        patience = asyncio.timeout(client.abort_after_s)
        try:
            async with patience:
                await self._exchange(client, number, record)
        except asyncio.CancelledError:
            record.aborted = True
            raise
        except (aiohttp.ClientError, OSError, TimeoutError) as failure:
            if patience.expired():
                record.aborted = True
            else:
                record.error = str(failure) or type(failure).__name__
        finally:
            record.ended = self._now()
            self._open[client.name] -= 1
            self._done[client.name] += record.done
        return record

    async def _exchange(self, client: Client, number: int, record: RequestRecord) -> None:
        body = self._body(client, number)
        record.sent = self._now()
        async with self._session.post(
            self._url, data=body, headers=_headers(client.api_key)
        ) as answer:
            record.status = answer.status
            if answer.status >= 400:
                record.error, record.error_type = await _refusal(answer)
                record.retry_after = _seconds(answer.headers.get("Retry-After"))
                return
            await self._receive(client, answer, record)

    async def _receive(
        self, client: Client, answer: aiohttp.ClientResponse, record: RequestRecord
    ) -> None:
        counter = EventCounter()
        zero, clock = self._zero, time.perf_counter
        async for data in answer.content.iter_any():
            began = counter.feed(data)
            if began:
                record.chunk_times.append(clock() - zero)
                record.chunk_events.append(began)
            if client.abort_after_events and counter.events >= client.abort_after_events:
                # Leaving the response unread makes aiohttp close the connection.
                answer.close()
                record.aborted = True
                return
        end = counter.end()
        record.complete = end.complete
        record.input_tokens = end.input_tokens
        record.output_tokens = end.output_tokens
        record.error, record.error_type = end.error, end.error_type
        if not end.complete and end.error is None:
            record.error = "the stream ended without [DONE]"

    def _body(self, client: Client, number: int) -> bytes:
        own = b"" if client.shared_prompt else f"{self._nonce} {number:06d} ".encode()
        repeats = -(-client.prompt_bytes // len(_WORDS))
        prompt = (own + _WORDS * repeats)[: client.prompt_bytes]
        body: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": "user", "content": prompt.decode()}],
            "max_tokens": client.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if client.ignore_eos:
            body["ignore_eos"] = True
        return json.dumps(body).encode()


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json"}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    return headers


async def _refusal(answer: aiohttp.ClientResponse) -> tuple[str, str | None]:
    """Read what a refusal says, and its type where it has OpenAI's shape."""
    text = (await answer.content.read(4096)).decode(errors="replace")
    error_type = None
    with contextlib.suppress(ValueError, KeyError, TypeError):
        content = json.loads(text)
        error_type = openai_error_type(content)
        text = str(content["error"]["message"])
    return f"{answer.status}: {text[:300]}", error_type


def _seconds(retry_after: str | None) -> float | None:
    # The header's other form, a date, is not worth a parser here: the caller has a default.
    with contextlib.suppress(ValueError):
        return float(retry_after) if retry_after is not None else None
    return None


def _input_tokens_per_byte(records: Iterable[RequestRecord]) -> float:
    known = [r for r in records if r.input_tokens is not None]
    prompt_bytes = sum(record.prompt_bytes for record in known)
    return sum(r.input_tokens or 0 for r in known) / prompt_bytes if prompt_bytes else 0.0


def _deliveries_of(record: RequestRecord, input_per_byte: float) -> Iterator[Delivery]:
    events = sum(record.chunk_events)
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
