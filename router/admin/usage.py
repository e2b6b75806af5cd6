"""/admin/usage: what clients have used, by the day, for people, bills and spreadsheets."""

from __future__ import annotations

import base64
import csv
import io
import json
import logging
from collections.abc import AsyncIterator, Mapping
from datetime import date, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field, field_validator

from fairness.store.contract import StoreUnavailableError
from fairness.store.usage import Used, day_of, today
from router.admin.client_groups import ClientGroups
from router.admin.fields import Body, Limit
from router.admin.usage_report import DIMENSIONS, Key, Question, rows
from router.directory.directory import Directory
from router.errors import ApiError
from router.turns import Turns

logger = logging.getLogger(__name__)

DAYS = 30  # unless told otherwise
LONGEST_DAYS = 3660
CSV_ROWS = 500  # a chunk
FIGURES = ("requests", "input_tokens", "cached_tokens", "output_tokens", "service", "waiting_s")
INCOMPLETE = "incomplete:"  # how the last line begins of a CSV that could not be told to its end


class UsageQuery(Body):
    """What is asked for."""

    first: date | None = Field(
        None, alias="from", description="The first day, UTC; default: 30 in all."
    )
    last: date | None = Field(None, alias="to", description="The last day; default: today.")
    by: str = Field(
        "day,client,model",
        description=f"Any of {', '.join(DIMENSIONS)}; over the rest it is summed.",
    )
    client: list[str] | None = Field(None, description="Only these clients.")
    group: str = Field("", max_length=260, description="Only its clients, and those of its teams.")
    after: str = Field("", max_length=4000, description="`next` of the page before.")
    limit: Limit = 100
    format: Literal["json", "csv"] | None = Field(
        None, description="Default: CSV if Accept says so, else JSON."
    )

    @field_validator("by")
    @classmethod
    def _are_dimensions(cls, by: str) -> str:
        unknown = _split(by) - set(DIMENSIONS)
        if unknown:
            raise ValueError(f"no {min(unknown)!r}; choose of {', '.join(DIMENSIONS)}")
        return by

    def dimensions(self) -> tuple[str, ...]:
        """What rows are told apart by."""
        return tuple(name for name in DIMENSIONS if name in _split(self.by))

    def days(self) -> tuple[date, date]:
        """The first and the last. Raises ApiError for what is no span of days."""
        last = self.last or today()
        first = self.first or last - timedelta(days=DAYS - 1)
        if first > last:
            raise ApiError(400, f"from: {first} is after {last}, the last day (`to`)", param="from")
        if (last - first).days >= LONGEST_DAYS:
            raise ApiError(400, f"from: no more than {LONGEST_DAYS} days at once", param="from")
        return first, last

    def question(self) -> Question:
        """Raises ApiError for what makes none."""
        first, last = self.days()
        dimensions = self.dimensions()
        try:
            after = _key(self.after, dimensions) if self.after else None
        except ValueError:
            told = "after: give `next` of the page before, with the same `by`"
            raise ApiError(400, told, param="after") from None
        return Question(
            day_of(first),
            day_of(min(last, today() + timedelta(days=1))),  # the store's clock may be ahead
            dimensions,
            None if self.client is None else tuple(self.client),
            self.group,
            after,
        )

    def wants_csv(self, accept: str) -> bool:
        """accept: the header."""
        return self.format == "csv" or (self.format is None and "text/csv" in accept)


class UsageRow(BaseModel):
    """Of what `by` names, the row has what it is the sum of; null: no group.

    requests: that ended, of those that reached an engine. cached_tokens: of input_tokens, those
    from the prefix cache. waiting_s: in line, until granted.
    """

    day: date | None = None
    organisation: str | None = None
    group: str | None = None
    client: str | None = None
    model: str | None = None
    requests: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    service: float
    waiting_s: float


class UsagePage(BaseModel):
    """Rows in order. next: give it as `after` for those that follow; null: there are no more."""

    first: date = Field(serialization_alias="from")
    last: date = Field(serialization_alias="to")
    usage: list[UsageRow]
    next: str | None


def usage_router(directory: Directory, turns: Mapping[str, Turns]) -> APIRouter:
    """Routes of the resource. turns: model -> its queue."""
    api = APIRouter(prefix="/usage", tags=["usage"])

    @api.get(
        "",
        response_model=UsagePage,
        response_model_exclude_unset=True,
        responses={200: {"content": {"text/csv": {}}}},
    )
    async def get_usage(query: Annotated[UsageQuery, Query()], request: Request) -> Any:
        """What was used, a page of rows as JSON, or all as CSV. The group of a client is the one
        it is in now. Reads every client: for people and bills, not for every second."""
        first, last = query.days()
        found = rows(query.question(), turns, ClientGroups(directory, turns).of)
        if query.wants_csv(request.headers.get("accept", "")):
            return await _csv(found, query.dimensions(), f"usage-{first}-{last}.csv")
        page: list[UsageRow] = []
        reached = None
        async for key, used in found:
            if len(page) == query.limit:
                return UsagePage(first=first, last=last, usage=page, next=_cursor(reached))
            page.append(UsageRow(**_named(query.dimensions(), key), **_figures(used)))
            reached = key
        return UsagePage(first=first, last=last, usage=page, next=None)

    return api


def _split(by: str) -> set[str]:
    return {name.strip() for name in by.split(",")} - {""}


def _cursor(key: Key | None) -> str:
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def _key(cursor: str, dimensions: tuple[str, ...]) -> Key:
    """Raises ValueError for what is no cursor of such rows."""
    try:
        key = tuple(map(str, json.loads(base64.urlsafe_b64decode(cursor))))
    except TypeError as error:
        raise ValueError(cursor) from error
    if len(key) != len(dimensions):
        raise ValueError(cursor)
    if "day" in dimensions:
        date.fromisoformat(key[0])
    return key


def _named(dimensions: tuple[str, ...], key: Key) -> dict[str, Any]:
    return {name: part or None for name, part in zip(dimensions, key, strict=True)}


def _figures(used: Used) -> dict[str, Any]:
    tokens = (used.input, used.cached, used.output)
    told = (used.requests, *tokens, used.service, used.waited / 1000)
    return dict(zip(FIGURES, told, strict=True))


async def _csv(
    found: AsyncIterator[tuple[Key, Used]], dimensions: tuple[str, ...], name: str
) -> Response:
    chunks = _csv_chunks(found, dimensions)
    begin = await anext(chunks)  # a store that is away is told as 503

    async def told() -> AsyncIterator[str]:
        yield begin
        try:
            async for chunk in chunks:
                yield chunk
        except StoreUnavailableError as error:
            logger.warning("a CSV of usage breaks off: %s", error)
            yield f"{INCOMPLETE} the store is out of reach; try again\r\n"

    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(told(), media_type="text/csv", headers=headers)


async def _csv_chunks(
    found: AsyncIterator[tuple[Key, Used]], dimensions: tuple[str, ...]
) -> AsyncIterator[str]:
    """The header row comes with the first rows."""
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow([*dimensions, *FIGURES])
    count = 0
    async for key, used in found:
        lines.writerow([*key, *_figures(used).values()])
        count += 1
        if count % CSV_ROWS == 0:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()
