"""A workload played against a real server, and its outcome in the workload's own terms.

The simulator and this module take the same `Workload` and return the same `Run`, so one report
judges both. What a real server adds are two scales:

- **Time.** One second of the workload takes ``time_scale`` seconds of the clock. A trace that
  keeps an A10G busy for ten minutes loads the tiny model on two cores as much in one. All times in
  a `Run` are the workload's seconds: what the clock told, divided by the scale.
- **Tokens.** Each length is multiplied by ``token_scale``, where the model's context is too short
  or the machine too slow. The `Run` holds the workload as it was really asked.

The loop is open: a request leaves at its time, however many are open. Times to first token count
from when a request *should* have left, so a late driver makes a server look worse and never better;
how late it was stands in ``Run.numbers``. A refused request is not sent again.

What can't be carried over: ``Request.entry``, as a load balancer decides which router is reached.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from fairness.measures import percentiles
from loadtests import driver
from loadtests.chat import Chat, Endpoint, first_model, http_session
from loadtests.client_keys import ClientKeys
from loadtests.driver import Planned, Progress, Script
from loadtests.outcome import Ending, Outcome, Run
from loadtests.prompts import TokenFit, prompt
from loadtests.records import Report, RequestRecord
from loadtests.scaling import Scale
from loadtests.workloads.workload import Request, Workload

# Statuses that say no before anything was served: the client's own fault or too much load.
_SAYS_NO = frozenset({*range(400, 500), 503})
_PROBE_BYTES = (64, 320)
_PROBE_S = 120.0


class UnfitServer(Exception):
    """The server can't be measured as it is; the message says why."""


@dataclass(frozen=True, slots=True)
class RealRun:
    """A run with what only a real one has: the driver's report, in seconds of the clock."""

    run: Run
    report: Report
    time_scale: float

    @property
    def fell_behind(self) -> bool:
        """Whether the driver was too slow for the run to be trusted (`Report.fell_behind`)."""
        return self.report.fell_behind

    @property
    def errors(self) -> Counter[str]:
        """Complaints and how often each was heard."""
        return self.report.errors()


def script(
    workload: Workload,
    keys: ClientKeys,
    fit: TokenFit,
    *,
    time_scale: float = 1.0,
    nonce: str = "",
    headers: Mapping[str, str] | None = None,
) -> Script:
    """Return the requests to send for a fitted workload, each made when it is its turn.

    ``headers`` are sent with each, ``{client}`` in their values replaced by its name, for
    servers that tell clients apart by another header than the key's.
    """

    def planned() -> Iterator[Planned]:
        for number, request in enumerate(workload.requests):
            yield Planned(
                request.at * time_scale,
                _chat(request, keys, fit, number=number, nonce=nonce, headers=headers or {}),
            )

    return Script(planned(), workload.clients)


def _chat(
    request: Request,
    keys: ClientKeys,
    fit: TokenFit,
    *,
    number: int,
    nonce: str,
    headers: Mapping[str, str],
) -> Chat:
    length = fit.bytes_for(request.input_tokens)
    prefix = None if request.prefix is None else f"{nonce} prefix {request.prefix}"
    return Chat(
        client=request.client,
        api_key=keys.key(request.client, request.key),
        prompt=prompt(
            f"{nonce} {number}",
            length,
            prefix=prefix,
            prefix_bytes=fit.bytes_of(request.prefix_tokens),
        ),
        max_tokens=request.output_tokens,
        # The first event carries the role, each after it about one token.
        abort_after_events=None if request.abort_after is None else request.abort_after + 1,
        headers={
            header: value.replace("{client}", request.client) for header, value in headers.items()
        },
    )


def outcomes(workload: Workload, report: Report, time_scale: float) -> tuple[Outcome, ...]:
    """Return what became of each request of a fitted workload that was made, in order of arrival.

    The report must be of a run of its `script` alone.
    """
    return tuple(
        _outcome(workload.requests[record.number], record, time_scale)
        for record in sorted(report.records, key=lambda record: record.number)
    )


def _outcome(request: Request, record: RequestRecord, time_scale: float) -> Outcome:
    ended = record.scheduled if record.ended is None else record.ended
    outcome = Outcome(request, _ending(record), ended / time_scale)
    if record.status >= 400 or not record.chunk_times:
        return outcome
    output = max(0, record.events - 1) if record.output_tokens is None else record.output_tokens
    return replace(
        outcome,
        input_tokens=request.input_tokens if record.input_tokens is None else record.input_tokens,
        output_tokens=output,
        first_token=record.chunk_times[0] / time_scale,
        last_token=record.chunk_times[-1] / time_scale,
    )


def _ending(record: RequestRecord) -> Ending:
    if record.ending == "refused" and record.status not in _SAYS_NO:
        return "failed"
    return record.ending


def numbers(workload: Workload, report: Report, scale: Scale) -> dict[str, float]:
    """Return what a real run tells besides its outcomes. ``clock_s``: seconds of the clock.

    inter_token: time between two network reads of a stream over the tokens in the later one.
    cut: requests closed at the end of the run. prompt_tokens_off: mean difference between a
    prompt's tokens as asked and as the server counted them.
    """
    made = report.records
    known = [(r, r.input_tokens) for r in made if r.input_tokens is not None]
    off = [abs(tokens - workload.requests[r.number].input_tokens) for r, tokens in known]
    found = {
        "time_scale": scale.time_scale,
        "token_scale": scale.token_scale,
        "requests_not_made": float(len(workload.requests) - len(made)),
        "cut": float(sum(record.cut for record in made)),
        "fell_behind": float(report.fell_behind),
        "prompt_tokens_off": sum(off) / len(off) if off else 0.0,
    }
    for name, values, quantiles in (
        ("late", [record.lateness for record in made], (99, 100)),
        ("ttft", [r.ttft for r in made if r.ttft is not None], (50, 99)),
        ("inter_token", [gap for record in made for gap in record.inter_token()], (50, 99)),
    ):
        if values:
            for quantile, value in zip(quantiles, percentiles(values, quantiles), strict=True):
                found[f"{name}_p{quantile}_clock_s"] = value
    return found


async def token_fit(base_url: str, model: str, api_key: str | None) -> TokenFit:
    """Ask two short questions to learn how many tokens a prompt of so many bytes has.

    Raises UnfitServer when the server refuses them or does not tell usage.
    """
    measured: list[tuple[int, int]] = []
    async with http_session(2) as session:
        endpoint = Endpoint(session, base_url, model, lambda: 0.0)
        for length in _PROBE_BYTES:
            chat = Chat("probe", api_key, prompt(secrets.token_hex(4), length), 1)
            record = RequestRecord(chat.client, 0.0, length)
            await endpoint.ask(chat, record)
            if record.input_tokens is None:
                said = record.error or "its stream ended without a usage event"
                raise UnfitServer(f"{base_url} did not answer a short question: {said}")
            measured.append((length, record.input_tokens))
    try:
        return TokenFit.through(*measured)
    except ValueError as error:
        raise UnfitServer(str(error)) from None


async def play(
    base_url: str,
    workload: Workload,
    keys: ClientKeys,
    *,
    scale: Scale | None = None,
    system: str = "fairlane",
    replicas: int = 1,
    model: str | None = None,
    headers: Mapping[str, str] | None = None,
    drain_s: float = 120.0,
    open_limit: int = 4096,
    allow_remote: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> RealRun:
    """Play a workload against ``base_url`` and return what came of it.

    ``drain_s``: after the last arrival, in seconds of the clock, what is still open is closed and
    counts as cut. ``system``, ``replicas`` and ``model`` (the first that the server lists) are
    the caller's names for what is measured. More than ``open_limit`` open requests are not made.

    Raises UnfitServer, aiohttp.ClientError when the server is not there, and ValueError when it is
    not of this machine and ``allow_remote`` is false.
    """
    scale = scale or Scale()
    fitted = scale.fit(workload)
    if not allow_remote:
        driver.require_loopback(base_url)
    if not fitted.requests:
        raise ValueError(f"{workload.name} has no requests in the time to be played")
    a_key = keys.key(fitted.requests[0].client)
    if model is None:
        async with http_session(1) as session:
            model = await first_model(session, base_url, a_key)
    fit = await token_fit(base_url, model, a_key)
    nonce = secrets.token_hex(4)
    report = await driver.run(
        base_url,
        [script(fitted, keys, fit, time_scale=scale.time_scale, nonce=nonce, headers=headers)],
        fitted.last_arrival * scale.time_scale + drain_s,
        model=model,
        nonce=nonce,
        on_progress=on_progress,
        request_limit=len(fitted.requests),
        open_limit=open_limit,
        allow_remote=allow_remote,
    )
    run = Run(
        workload=fitted,
        system=system,
        replicas=replicas,
        outcomes=outcomes(fitted, report, scale.time_scale),
        makespan=report.duration_s / scale.time_scale,
        numbers=numbers(fitted, report, scale),
    )
    return RealRun(run, report, scale.time_scale)
