"""Who looks at requests: stories to be explained, traces, the access log.

A request that nobody looks at costs a comparison or two. For one that somebody does, a `Story` is
written while it happens and handed round when all is known of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fairness.cost import ServiceCost
from fairness.store.contract import StoreUnavailableError
from router.bodies import Body, ClientGoneError
from router.clients import Client
from router.errors import ApiError
from router.explain.following import Following
from router.explain.stories import Stories
from router.explain.story import Story
from router.relay import BrokenAnswerError

if TYPE_CHECKING:
    from router.app import Exchange
    from router.tracing import Tracing

CUT_OFF = "its replica failed in the middle of the answer"
access_log = logging.getLogger("fairlane.access")


@dataclass(frozen=True, slots=True)
class TracingSettings:
    """endpoint: where spans go, OTLP over HTTP. sample: share of requests that are traced (0 to 1).
    trust_incoming: go on with the traces that clients send, and sample as they say."""

    endpoint: str
    sample: float = 0.01
    trust_incoming: bool = False


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """keep: stories kept, 0 for none. per_second: new ones at most. access: the access log."""

    keep: int = 1000
    per_second: int = 100
    access: bool = False
    tracing: TracingSettings | None = None


class Watch:
    """One router's."""

    def __init__(
        self,
        router: str,
        cost: ServiceCost,
        *,
        stories: Stories | None = None,
        tracing: Tracing | None = None,
        access: bool = False,
    ) -> None:
        """stories: None to explain nothing. access: write a line a request to `access_log`."""
        self._router = router
        self._cost = cost
        self._stories = stories
        self._tracing = tracing
        self._access = access

    @contextlib.contextmanager
    def over(
        self, exchange: Exchange, client: Client, body: Body, pool: str, following: Following
    ) -> Iterator[Story | None]:
        """Write the story of a request, if somebody wants it, and note how it ends."""
        story = self._begin(exchange, client, body, pool)
        if story is None:
            yield None
            return
        try:
            yield story
        except ClientGoneError:
            story.end("cancelled", status=exchange.status)
            raise
        except ApiError as error:
            story.end("refused", error.message, error.status)
            raise
        except StoreUnavailableError:
            story.end("refused", "the global queue is out of reach", 503)
            raise
        except BrokenAnswerError:
            story.end("failed", CUT_OFF, exchange.status)
            raise
        except asyncio.CancelledError:
            story.end("cancelled", "its connection was cut", exchange.status)
            raise
        except Exception as error:
            story.end("failed", f"a fault of the router: {type(error).__name__}", exchange.status)
            raise
        else:
            if exchange.broken:
                story.end("failed", CUT_OFF, exchange.status)
            else:
                story.end("done", status=exchange.status)
        finally:
            following.over(story)

    def headers(self, story: Story | None) -> list[tuple[str, str]]:
        """For the replica: whose trace its engine goes on with."""
        if self._tracing is None:
            return []
        return self._tracing.headers(None if story is None else story.trace)

    def _begin(self, exchange: Exchange, client: Client, body: Body, pool: str) -> Story | None:
        kept = self._stories is not None and self._stories.takes(client.name)
        trace = None if self._tracing is None else self._tracing.begin(exchange)
        if not kept and trace is None and not self._access:
            return None
        story = Story(
            self._router,
            pool,
            client,
            exchange.path,
            len(body.data),
            body.priority,
            exchange.request_id,
            exchange.born,
            exchange.at,
            self._finish,
            kept,
            trace=trace,
        )
        if kept and self._stories is not None:
            self._stories.add(story)
        return story

    def _finish(self, story: Story) -> None:
        """All is known of it, or never will be."""
        if story.trace is not None:
            story.trace.finish(story)
        if self._access:
            write_access_line(story.facts(self._cost))


def write_access_line(facts: dict[str, object]) -> None:
    """One line a request, when it is over: who, what, how it ended, waits, tokens."""
    grants = facts["grants"]
    last = grants[-1] if isinstance(grants, list) and grants else {}
    end = last.get("end") or {}
    names = ("request", "trace_id", "client", "model", "path", "priority", "state", "status", "why")
    times = ("received_at", "waited_ms", "first_byte_ms", "ended_ms", "body_bytes")
    fields = {name: facts[name] for name in (*names, *times)}
    fields["request_id"] = fields.pop("request")
    fields |= {
        "replica": last.get("replica"),
        "grants": len(grants) if isinstance(grants, list) else 0,
        "input_tokens": end.get("input_tokens"),
        "cached_tokens": end.get("cached_tokens"),
        "output_tokens": end.get("output_tokens"),
        "service": end.get("service"),
    }
    access_log.info("%s %s", facts["path"], facts["state"], extra={"fields": fields})
