"""Drive an OpenAI-style HTTP server with several clients at once and record what each received.

**Open loop** (`OpenLoop`): requests leave at the arrival times of the workload, whatever happens
to earlier ones; a slow server meets a growing crowd, as in life. If the driver itself falls behind
that is seen and not hidden: each record has its ``lateness``, and the report says whether the
run can be trusted (`Report.fell_behind`). **Closed loop** (`ClosedLoop`): a number of connections,
each with one request open at all times; a refused one waits as long as the answer's Retry-After
says before it asks again. A `Script` is an open loop whose every request is given exactly, for
workloads made elsewhere.

How a request is sent and timed is in `loadtests.chat`, what comes back in `loadtests.records`.

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
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp

from loadtests.chat import Chat, Endpoint, first_model, http_session
from loadtests.prompts import prompt
from loadtests.records import ClientSummary, Report, RequestRecord

__all__ = [
    "Chat",
    "Client",
    "ClientSummary",
    "ClosedLoop",
    "OpenLoop",
    "Planned",
    "Progress",
    "Report",
    "RequestRecord",
    "Script",
    "require_loopback",
    "run",
]


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

    def chat(self, nonce: str, number: int) -> Chat:
        """Return its request of this number."""
        beginning = "shared" if self.shared_prompt else f"{nonce} {number}"
        return Chat(
            client=self.name,
            api_key=self.api_key,
            prompt=prompt(beginning, self.prompt_bytes),
            max_tokens=self.max_tokens,
            ignore_eos=self.ignore_eos,
            abort_after_events=self.abort_after_events,
            abort_after_s=self.abort_after_s,
        )


@dataclass(frozen=True, slots=True)
class Planned:
    """A request and when to send it, in seconds of the run."""

    at: float
    chat: Chat


@dataclass(frozen=True, slots=True)
class Script:
    """Requests in order of time, sent then whatever happens to earlier ones.

    They may be made one by one as they are sent (a generator): the k-th is record number k, when
    the script is all there is in the run. ``clients`` are the names it has.
    """

    requests: Iterable[Planned]
    clients: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """A run at one moment.

    ``open`` and ``done`` are numbers of requests by client name; ``sent``, ``refused``, ``failed``
    and ``aborted`` of all clients. ``late_s`` is the largest lateness among the requests sent since
    the last such report, in seconds.
    """

    elapsed_s: float
    open: Counter[str]
    done: Counter[str]
    sent: int = 0
    refused: int = 0
    failed: int = 0
    aborted: int = 0
    late_s: float = 0.0


async def run(
    base_url: str,
    clients: Sequence[Client | Script],
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
    second and at the end, and must be quick. Requests beyond ``request_limit`` per run are not
    made; those beyond ``open_limit`` open ones are recorded as errors and not sent.

    Raises ValueError when the URL is not of this machine and ``allow_remote`` is false, and
    aiohttp.ClientError when the list of models was asked for and did not come.
    """
    if not allow_remote:
        require_loopback(base_url)
    async with http_session(open_limit) as session:
        if model is None:
            keys = [client.api_key for client in clients if isinstance(client, Client)]
            model = await first_model(session, base_url, keys[0] if keys else None)
        driver = _Driver(
            session=session,
            base_url=base_url,
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
            "to load another machine that is yours, pass allow_remote=True (--allow-remote)"
        )


class _Driver:
    """One run. Its tasks live in one TaskGroup, which holds, awaits and cancels all of them."""

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession,
        base_url: str,
        model: str,
        nonce: str,
        request_limit: int,
        open_limit: int,
    ) -> None:
        self._endpoint = Endpoint(session, base_url, model, self._now)
        self._nonce = nonce
        self._open_limit = open_limit
        self._numbers = iter(range(request_limit))
        self._records: list[RequestRecord] = []
        self._open: Counter[str] = Counter()
        self._done: Counter[str] = Counter()
        self._tally: Counter[str] = Counter()
        self._late_s = 0.0
        self._zero = 0.0

    async def drive(
        self,
        clients: Sequence[Client | Script],
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
                        if isinstance(client, Script):
                            tasks.create_task(self._script(client, tasks))
                        else:
                            tasks.create_task(self._source(client, tasks))
        finally:
            if watcher is not None:
                watcher.cancel()
                await asyncio.gather(watcher, return_exceptions=True)
        duration_s = self._now()
        if on_progress:
            on_progress(self._progress())
        return Report(started_at, duration_s, tuple(self._records))

    def _now(self) -> float:
        return time.perf_counter() - self._zero

    async def _watch(self, on_progress: Callable[[Progress], None]) -> None:
        while True:
            on_progress(self._progress())
            await asyncio.sleep(0.25)

    def _progress(self) -> Progress:
        late_s, self._late_s = self._late_s, 0.0
        return Progress(
            elapsed_s=self._now(),
            open=+self._open,
            done=self._done.copy(),
            sent=self._tally["sent"],
            refused=self._tally["refused"],
            failed=self._tally["failed"],
            aborted=self._tally["aborted"],
            late_s=late_s,
        )

    async def _script(self, script: Script, tasks: asyncio.TaskGroup) -> None:
        for planned in script.requests:
            await self._sleep_until(planned.at)
            number = next(self._numbers, None)
            if number is None:
                return
            tasks.create_task(self._request(planned.chat, planned.at, number))

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
            tasks.create_task(self._request(self._chat(client, number), at, number))

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
            record = await self._request(self._chat(client, number), self._now(), number)
            if not record.done and not record.aborted:
                wait = 0.5 if record.retry_after is None else record.retry_after
                await asyncio.sleep(min(max(wait, 0.05), 5.0))

    def _chat(self, client: Client, number: int) -> Chat:
        return client.chat(self._nonce, number)

    async def _sleep_until(self, at: float) -> None:
        # No pause when late, not even a turn of the event loop: with a thousand streams open a turn
        # takes long, and one request a turn would never catch up.
        wait = at - self._now()
        if wait > 0:
            await asyncio.sleep(wait)

    async def _request(self, chat: Chat, scheduled: float, number: int) -> RequestRecord:
        record = RequestRecord(chat.client, scheduled, len(chat.prompt), number=number)
        self._records.append(record)
        if self._open.total() >= self._open_limit:
            record.error = f"not sent: the driver has {self._open_limit} requests open"
            self._tally["failed"] += 1
            return record
        self._open[chat.client] += 1
        self._tally["sent"] += 1
        self._late_s = max(self._late_s, self._now() - scheduled)
        patience = asyncio.timeout(chat.abort_after_s)
        try:
            async with patience:
                await self._endpoint.ask(chat, record)
        except asyncio.CancelledError:
            record.aborted = record.cut = True
            raise
        except (aiohttp.ClientError, OSError, TimeoutError) as failure:
            if patience.expired():
                record.aborted = True
            else:
                record.error = str(failure) or type(failure).__name__
        finally:
            record.ended = self._now()
            self._open[chat.client] -= 1
            self._done[chat.client] += record.done
            self._tally[record.ending] += 1
        return record
