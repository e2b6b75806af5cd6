"""Traces of a router: which spans there are, who is whose child, and what a broken collector
costs."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

from fairness.cost import ServiceCost
from fairness.store.contract import Usage
from router.tracing import QUEUE_SPANS, Tracing
from router.watch import TracingSettings, Watch
from tests.integration.test_explain import CHAT, Replica, Router, fine, replica, router
from tests.integration.trunk_replica import Request
from tests.otlp_collector import Collector, attributes, collecting

pytestmark = pytest.mark.integration

INCOMING = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = INCOMING[:-2] + "00"
PARTS = ["fairlane.queue", "fairlane.grant", "fairlane.relay"]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


@asynccontextmanager
async def traced(
    server_url: str, settings: TracingSettings, name: str = "router-1"
) -> AsyncIterator[Router]:
    """A router whose requests are traced, and explained not."""
    async with router(server_url, name) as made:
        tracing = Tracing(settings, name)
        made.app.watch = Watch(name, ServiceCost(), tracing=tracing)
        try:
            yield made
        finally:
            await asyncio.to_thread(tracing.shut_down)


class Headers:
    """A replica's app that notes what it is told."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []

    async def answer(self, request: Request) -> None:
        self.seen.append(request.headers)
        await fine(request)


@pytest_asyncio.fixture
async def told() -> Headers:
    return Headers()


async def ask(one: Router, at: Replica, **headers: str) -> None:
    await at.take(1)
    headers = {"Authorization": "Bearer sk-dave", **headers}
    answer = await one.http.post("/v1/chat/completions", json=CHAT, headers=headers)
    assert answer.status_code == 200, answer.text
    await at.settle(at.leases.tokens[-1].lease, Usage(30, 0, 5))


def sampled(headers: dict[str, str]) -> bool:
    """Is the replica told to trace it?"""
    return bool(int(headers["traceparent"][-2:], 16) & 1)


async def spans(collector: Collector, roots: int = 1) -> tuple[Any, dict[str, Any]]:
    """The root, and the others by name, when as many requests as that have been traced."""

    def enough(found: list[Any]) -> bool:
        return sum(span.name.startswith("POST") for span in found) == roots

    found = await asyncio.to_thread(collector.until, enough)
    root = [span for span in found if span.name.startswith("POST")][-1]
    return root, {span.name: span for span in found if span.trace_id == root.trace_id}


async def test_the_tree_of_a_request(server_url: str, collector: Collector, told: Headers) -> None:
    async with (
        traced(server_url, TracingSettings(collector.url, sample=1)) as one,
        replica(server_url, "replica-1", told.answer) as only,
    ):
        await ask(one, only)
        root, parts = await spans(collector)
    assert root.name == "POST /v1/chat/completions"
    assert sorted(parts) == sorted([root.name, *PARTS])
    assert not root.parent_span_id
    for name in PARTS:
        part = parts[name]
        assert part.parent_span_id == root.span_id
        assert root.start_time_unix_nano <= part.start_time_unix_nano
        assert part.start_time_unix_nano <= part.end_time_unix_nano <= root.end_time_unix_nano
    assert abs(root.start_time_unix_nano / 1e9 - time.time()) < 60
    queue, grant, relay = (parts[name] for name in PARTS)
    assert queue.end_time_unix_nano == grant.start_time_unix_nano
    assert [event.name for event in relay.events] == ["first_byte"]
    # The replica goes on below the relay.
    trace, span = root.trace_id.hex(), relay.span_id.hex()
    assert told.seen[0]["traceparent"].rpartition("-")[0] == f"00-{trace}-{span}"
    assert sampled(told.seen[0])
    known = attributes(root)
    assert known["fairlane.client"] == "dave"
    assert known["fairlane.group"] == "acme"
    assert known["gen_ai.usage.output_tokens"] == 5
    assert known["http.response.status_code"] == 200
    assert attributes(grant)["fairlane.replica"] == "replica-1"
    sent = b"".join(collector.raw)
    assert b"secret" not in sent
    assert b"sk-dave" not in sent


async def test_a_second_try_has_spans_of_its_own(server_url: str, collector: Collector) -> None:
    refusals = iter([True, False])

    async def refuses_once(request: Request) -> None:
        if next(refusals):
            await request.answer(b"", 403)
        else:
            await fine(request)

    async with (
        traced(server_url, TracingSettings(collector.url, sample=1)) as one,
        replica(server_url, "replica-1", refuses_once) as only,
    ):
        asked = asyncio.create_task(ask(one, only))
        async with asyncio.timeout(20):
            while not only.leases.tokens:
                await asyncio.sleep(0.01)
        await only.take(2)  # what it offered before is void
        await asked
        await spans(collector)
    names = [span.name for span in collector.spans()]
    assert [names.count(part) for part in PARTS] == [2, 2, 2]
    first = min(
        (span for span in collector.spans() if span.name == "fairlane.relay"),
        key=lambda span: int(span.start_time_unix_nano),
    )
    assert "grant refused" in first.status.message


async def test_a_clients_trace_is_heeded_only_where_it_is_trusted(
    server_url: str, collector: Collector, told: Headers
) -> None:
    state = {"traceparent": INCOMING, "tracestate": "vendor=1"}
    async with (
        traced(server_url, TracingSettings(collector.url, 0, trust_incoming=True)) as one,
        replica(server_url, "replica-1", told.answer) as only,
    ):
        await ask(one, only, **state)
        root, _ = await spans(collector)
        await ask(one, only, traceparent="00-nonsense")
        await ask(one, only, traceparent=UNSAMPLED)
        await ask(one, only)
    assert root.trace_id.hex() == INCOMING.split("-")[1]
    assert root.parent_span_id.hex() == INCOMING.split("-")[2]
    assert told.seen[0]["tracestate"] == "vendor=1"
    # vLLM would begin a trace of its own if it were told nothing.
    assert [sampled(headers) for headers in told.seen] == [True, False, False, False]
    told.seen.clear()
    async with (
        traced(server_url, TracingSettings(collector.url, 0), "router-2") as one,
        replica(server_url, "replica-2", told.answer) as only,
    ):
        await ask(one, only, **state)
    assert INCOMING.split("-")[1] not in told.seen[0]["traceparent"]
    assert "tracestate" not in told.seen[0]
    assert sum(span.name.startswith("POST") for span in collector.spans()) == 1


async def test_without_tracing_the_replica_is_told_of_no_trace(
    server_url: str, told: Headers
) -> None:
    async with (
        router(server_url, "router-1") as one,
        replica(server_url, "replica-1", told.answer) as only,
    ):
        await ask(one, only, traceparent=INCOMING)
    assert "traceparent" not in told.seen[0]


async def test_a_collector_that_hangs_holds_nobody_up_and_fills_no_memory(server_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces"
        async with (
            traced(server_url, TracingSettings(url, sample=1)) as one,
            replica(server_url, "replica-1", fine) as only,
        ):
            for _ in range(5):
                await ask(one, only)
            tracing = one.app.watch._tracing  # type: ignore[union-attr]
            assert tracing is not None
            for _ in range(2 * QUEUE_SPANS):
                tracing._tracer.start_span("more").end()
            (processor,) = tracing._provider._active_span_processor._span_processors
            assert len(processor._batch_processor._queue) <= QUEUE_SPANS
            await ask(one, only)
