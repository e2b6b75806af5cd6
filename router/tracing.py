"""Traces by OpenTelemetry: a request's way through this router, and on into vLLM.

    POST /v1/chat/completions        from the first byte of the request to the last of its answer
      fairlane.queue                 in line, until its grant; again after a replica that failed
      fairlane.grant                 from hearing of the grant to asking the replica
      fairlane.relay                 the replica's part, with an event at its first byte
        llm_request                  vLLM's own, made in the engine's process

Spans are made from the request's `Story` when all is known of it; only the ids that the replica is
to be told exist before. The exporter's own thread sends them; its queue is bounded, and what does
not fit is dropped. A request that is not sampled costs one random number, and its replica is told
so: vLLM would otherwise begin a trace of its own.

Cost: about 0.1 ms of the router's CPU for a request that is traced.
"""

from __future__ import annotations

import logging
import random
import threading
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Span,
    SpanKind,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from router.explain.story import Story, Try
from router.watch import TracingSettings

if TYPE_CHECKING:
    from router.app import Exchange

QUEUE_SPANS = 2048  # that wait for the collector; more are dropped
SHUT_DOWN_S = 3.0
SERVICE_NAME = "fairlane-router"  # unless OTEL_SERVICE_NAME says another
Headers = list[tuple[str, str]]

_w3c = TraceContextTextMapPropagator()


class Tracing:
    """One router's: decides what is traced. `shut_down` it in a thread: it sends what is left."""

    def __init__(self, settings: TracingSettings, router: str) -> None:
        """What else OTEL_EXPORTER_OTLP_* say (headers, certificates, time limits) holds, too."""
        self._settings = settings
        name = Resource.create().attributes.get("service.name")
        own = {"service.instance.id": router}
        if name is None or str(name).startswith("unknown_service"):
            own["service.name"] = SERVICE_NAME
        # A provider of its own, not the process's: what Ray or a library traces is not ours.
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=Resource.create(own), shutdown_on_exit=False
        )
        exporter = OTLPSpanExporter(endpoint=settings.endpoint)
        # A collector that is away is told of when a batch is given up, not at every try.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=QUEUE_SPANS))
        self._tracer = self._provider.get_tracer("fairlane")

    def begin(self, exchange: Exchange) -> RequestTrace | None:
        """The trace of a request, if it is to have one."""
        parent = self._parent(exchange)
        if parent is not None:
            sampled = get_current_span(parent).get_span_context().trace_flags.sampled
        else:
            sampled = random.random() < self._settings.sample
        return RequestTrace(self._tracer, exchange, parent) if sampled else None

    def headers(self, trace: RequestTrace | None) -> Headers:
        """What the replica is told."""
        return _not_sampled() if trace is None else trace.ask()

    def shut_down(self) -> None:
        """Send what is left, or leave it after `SHUT_DOWN_S`. Blocks for so long."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(SHUT_DOWN_S)

    def _parent(self, exchange: Exchange) -> Context | None:
        if not self._settings.trust_incoming:
            return None
        names = ("traceparent", "tracestate")
        told = {name: value for name in names if (value := exchange.header(name)) is not None}
        if "traceparent" not in told:
            return None
        found = _w3c.extract(told, Context())
        return found if get_current_span(found).get_span_context().is_valid else None


def _not_sampled() -> Headers:
    ids = f"{random.getrandbits(128) or 1:032x}-{random.getrandbits(64) or 1:016x}"
    return [("traceparent", f"00-{ids}-00")]


class RequestTrace:
    """The spans of one request."""

    def __init__(self, tracer: Tracer, exchange: Exchange, parent: Context | None) -> None:
        self._tracer = tracer
        self._relays: list[Span] = []
        self._span = tracer.start_span(
            f"{exchange.method} {exchange.path}",
            context=parent or Context(),
            kind=SpanKind.SERVER,
            start_time=int(exchange.at * 1e9),
        )
        self._context = set_span_in_context(self._span, Context())

    @property
    def trace_id(self) -> str:
        """In hex, as in `traceparent`."""
        return f"{self._span.get_span_context().trace_id:032x}"

    def ask(self) -> Headers:
        """A replica is asked: what it is told, so that its spans become children of the relay."""
        relay = self._tracer.start_span("fairlane.relay", self._context, SpanKind.CLIENT)
        self._relays.append(relay)
        carrier: dict[str, str] = {}
        _w3c.inject(carrier, set_span_in_context(relay, Context()))
        return list(carrier.items())

    def finish(self, story: Story) -> None:
        """All is known: make the rest, end all."""
        clock = _Clock(story)
        in_line = story.submitted
        for each, relay in zip(story.tries, [*self._relays, None], strict=False):
            self._queued(story, clock, in_line, each.heard)
            self._granted(clock, each)
            if relay is not None:
                _end_relay(relay, clock, story, each)
            in_line = each.over if each.failed else None
        if in_line is not None:
            self._queued(story, clock, in_line, story.ended)
        self._span.set_attributes(_known(_of_request(story)))
        if story.state == "failed" or (story.status or 0) >= 500:
            self._span.set_status(StatusCode.ERROR, story.why or None)
        self._span.end(clock.ns(story.ended))

    def _queued(
        self, story: Story, clock: _Clock, since: float | None, until: float | None
    ) -> None:
        attributes: dict[str, Any] = {"fairlane.pool": story.pool}
        if story.standing is not None:
            attributes["fairlane.queue.policy"] = story.standing.policy
            attributes["fairlane.queue.requests_before"] = story.standing.before_it
            for level in story.standing.levels[:1]:
                attributes["fairlane.queue.ahead"] = level.ahead
        self._part("fairlane.queue", clock, since, until, attributes)

    def _granted(self, clock: _Clock, each: Try) -> None:
        attributes = {
            "fairlane.lease": each.grant.lease,
            "fairlane.replica": each.grant.replica,
            "fairlane.counter": each.grant.counter,
        }
        if each.grant.choice is not None:
            attributes["fairlane.charged"] = each.grant.choice.charged
        until = each.asked or each.over or each.heard
        self._part("fairlane.grant", clock, each.heard, until, attributes)

    def _part(
        self,
        name: str,
        clock: _Clock,
        since: float | None,
        until: float | None,
        attributes: dict[str, Any],
    ) -> None:
        span = self._tracer.start_span(
            name, self._context, start_time=clock.ns(since), attributes=attributes
        )
        span.end(clock.ns(until))


class _Clock:
    """Unix nanoseconds of a story's times."""

    def __init__(self, story: Story) -> None:
        self._zero = story.at - story.born

    def ns(self, moment: float | None) -> int | None:
        return None if moment is None else int((self._zero + moment) * 1e9)


def _end_relay(span: Span, clock: _Clock, story: Story, each: Try) -> None:
    span.set_attribute("fairlane.replica", each.grant.replica)
    if each.failed:
        span.set_status(StatusCode.ERROR, each.failed)
    elif story.answered is not None:
        span.add_event("first_byte", timestamp=clock.ns(story.answered))
    span.end(clock.ns(each.over or story.ended))


def _of_request(story: Story) -> dict[str, Any]:
    end = story.tries[-1].end if story.tries else None
    return {
        "http.request.method": "POST",
        "url.path": story.path,
        "http.response.status_code": story.status,
        "gen_ai.request.model": story.pool,
        "gen_ai.usage.input_tokens": end and end.input,
        "gen_ai.usage.output_tokens": end and end.output,
        "fairlane.request_id": story.request,
        "fairlane.client": story.client.name,
        "fairlane.group": story.client.groups[-1].name if story.client.groups else None,
        "fairlane.priority": story.priority,
        "fairlane.state": story.state,
        "fairlane.service": end and end.service,
        "fairlane.grants": len(story.tries),
    }


def _known(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}
