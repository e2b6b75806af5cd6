"""/admin/explain, /admin/requests: what became of requests, and why."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from router.admin.fields import Limit
from router.errors import ApiError
from router.explain.account import account
from router.explain.shelf import Shelf

State = Literal["waiting", "running", "done", "cancelled", "refused", "failed"]
How = Literal["settled", "lost", "taken_back"]


FORGOTTEN = (
    "nothing is known of this request. Its id is in the header x-fairlane-request-id of the "
    "answer. Stories are kept of the last requests only (explain.keep of each router), of so many "
    "a second (explain.per_second), and for an hour at most once a router has ended; routers share "
    "theirs within two seconds; requests refused for their key or their body have none"
)


class Told(BaseModel):
    """A part of the answer. Times are milliseconds since the request came in."""

    model_config = ConfigDict(extra="forbid")


class Before(Told):
    """One that was to be served before."""

    name: str
    counter: float
    by: float = Field(description="How much less service by weight it had received.")


class LevelOfStanding(Told):
    """Where the client, or a group it is in, stood among those it stands with."""

    name: str
    group: bool
    counter: float = Field(description="Service received, by weight.")
    ahead: int = Field(description="How many who waited had received less.")
    first: list[Before] = Field(description="The first five of them.")


class ClassAhead(Told):
    """A priority class that went before its own."""

    name: str
    owed: float


class ClassOfStanding(Told):
    """Its priority class among those that waited."""

    name: str
    owed: float = Field(description="Service it was owed of its floor; above 0 it goes first.")
    ahead: list[ClassAhead]


class StandingWhenItCame(Told):
    """Who was before it when it came into the queue; only if it had to wait."""

    policy: str
    requests_before: int = Field(
        description="Requests of its own client before it; under fcfs and shadow, of all clients."
    )
    own_requests_before: int = Field(
        default=0, description="Of its own client, whatever the policy."
    )
    priority_class: ClassOfStanding | None = Field(
        default=None, description="Null where there are no classes."
    )
    levels: list[LevelOfStanding] = Field(
        description="The outermost first; under shadow as vtc would have had them."
    )


class Chosen(Told):
    """Why that replica."""

    credits: int = Field(description="Requests that it took before this one; the most of all.")
    next_replica: str | None = Field(description="Who had the next most.")
    next_credits: int


class Charged(Told):
    """What was charged in advance."""

    service: float
    input_tokens: int | None = Field(description="Estimated from the bytes of the body.")
    output_tokens: float = Field(description="Predicted.")


class EndOfLease(Told):
    """How it was settled."""

    how: How
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    charged_before: float = Field(description="What stood charged just before.")
    service: float = Field(description="What it cost.")
    correction: float | None = Field(description="`service` less what was charged in advance.")


class GrantTold(Told):
    """One grant."""

    lease: str
    replica: str
    granted_ms: float
    counter_after: float = Field(description="Its client's counter, this charge included.")
    failed: str | None = Field(description="Why that replica gave no answer.")
    turn_under_vtc: str | None = Field(
        default=None, description="Under shadow: the client whose turn it was under vtc."
    )
    chosen: Chosen | None
    charged: Charged | None
    end: EndOfLease | None = Field(description="Null until a second or two after the answer.")


class Explanation(Told):
    """One request."""

    request: str
    trace_id: str | None
    router: str
    model: str
    client: str
    groups: list[str]
    weight: float
    priority: int
    priority_class: str | None = Field(default=None, description="Null: there are no classes.")
    price: float = Field(
        default=1.0, description="Of its model, next to its pool's: its service is so many times."
    )
    path: str
    body_bytes: int
    received_at: datetime
    state: State
    status: int | None = Field(description="Of the HTTP answer.")
    why: str = Field(description="Why it was refused, or how it failed.")
    degraded: bool = Field(description="It came while the router did without the store.")
    waited_ms: float | None = Field(description="In line; null: it never came into the queue.")
    first_byte_ms: float | None
    ended_ms: float | None
    standing: StandingWhenItCame | None
    grants: list[GrantTold]
    account: list[str] = Field(description="All of it in words.")


class RecentRequest(Told):
    """One line of a list of requests."""

    request: str
    client: str
    model: str
    router: str
    received_at: datetime
    state: State
    status: int | None
    waited_ms: float | None
    ended_ms: float | None
    replica: str | None
    input_tokens: int | None
    output_tokens: int | None
    service: float | None


class RecentRequests(Told):
    """The newest first."""

    requests: list[RecentRequest]


def explain_router(shelf: Shelf | None) -> APIRouter:
    """Routes of the resource. shelf: None where nothing is explained."""
    api = APIRouter(tags=["explain"])

    @api.get("/explain/{request_id}")
    async def explain(request_id: Annotated[str, Path(max_length=100)]) -> Explanation:
        """Why a request waited, who was before it and by how much, where it went and why, what it
        was charged and corrected. Its id is in the answer's header x-fairlane-request-id."""
        facts = await _shelf(shelf).find(request_id)
        if facts is None:
            raise ApiError(404, FORGOTTEN, "not_found_error", "request_not_found", "request_id")
        return Explanation(**facts, account=account(facts))

    @api.get("/requests")
    async def recent_requests(
        client: Annotated[
            str | None, Query(max_length=128, description="Only of this one.")
        ] = None,
        limit: Limit = 100,
    ) -> RecentRequests:
        """The last requests that can be explained, of all routers. Reads all stories there are: a
        kilobyte each, up to a thousand a router."""
        found = await _shelf(shelf).recent(client, limit)
        return RecentRequests(requests=[_recent(facts) for facts in found])

    return api


def _shelf(shelf: Shelf | None) -> Shelf:
    if shelf is None:
        message = "this deployment keeps no stories of requests; set explain.keep above 0"
        raise ApiError(404, message, "not_found_error", "explain_is_off")
    return shelf


def _recent(facts: dict[str, Any]) -> RecentRequest:
    names = ("request", "client", "model", "router", "received_at", "state", "status")
    last = facts["grants"][-1] if facts["grants"] else {}
    end = last.get("end") or {}
    return RecentRequest(
        **{name: facts[name] for name in (*names, "waited_ms", "ended_ms")},
        replica=last.get("replica"),
        input_tokens=end.get("input_tokens"),
        output_tokens=end.get("output_tokens"),
        service=end.get("service"),
    )
