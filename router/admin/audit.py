"""/admin/audit: who has changed what, when and from where."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel

from router.admin.fields import Limit, moment
from router.directory.directory import Directory
from router.directory.records import Event


class EventView(BaseModel):
    """One change. by: the id of the admin key. origin: where the request came from, and for whom
    the proxies before it said they asked. key: the id of the key that it is about."""

    id: str
    at: datetime | None
    what: str
    subject: str
    key: str | None
    by: str
    origin: str
    detail: dict[str, Any]


class EventPage(BaseModel):
    """Changes, the newest first. next: give it as `before` for older ones; null: no more."""

    events: list[EventView]
    next: str | None


def audit_router(directory: Directory) -> APIRouter:
    """Routes of the resource."""
    api = APIRouter(prefix="/audit", tags=["audit"])

    @api.get("")
    async def list_changes(
        before: Annotated[str, Query(pattern=r"^\d{1,16}-\d{1,10}$")] | None = None,
        limit: Limit = 100,
    ) -> EventPage:
        """The last 10,000 changes made through this API."""
        until = "+" if before is None else before
        # The entry named by `before` is not shown again, and one more says whether any follow.
        events = await directory.store.log("-", limit + 2, until)
        events = [event for event in events if event.id != before]
        shown = events[:limit]
        more = shown[-1].id if len(events) > limit else None
        return EventPage(events=[_view(event) for event in shown], next=more)

    return api


def _view(event: Event) -> EventView:
    return EventView(
        id=event.id,
        at=moment(event.time),
        what=event.verb,
        subject=event.subject,
        key=event.key or None,
        by=event.actor.admin,
        origin=event.actor.origin,
        detail=json.loads(event.detail),
    )
