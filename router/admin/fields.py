"""Fields that several resources have, with their bounds."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import Path, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from router.directory.records import CLIENT_NAME, GROUP_NAME, Actor

Source = Literal["configuration", "directory"]
Weight = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False, description="Its share.")]
PART_WORDS = "1 to 128 letters, digits and . _ @ + -, the first a letter or digit"


def _client_name(name: str) -> str:
    if not re.fullmatch(CLIENT_NAME, name):
        raise ValueError(f"the name of a client is {PART_WORDS}")
    return name


def _group_name(name: str) -> str:
    if not re.fullmatch(GROUP_NAME, name):
        raise ValueError(
            "a group is an organisation (acme) or a team of one (acme/ml); a name is " + PART_WORDS
        )
    return name


ClientName = Annotated[
    str,
    AfterValidator(_client_name),
    Field(description=PART_WORDS, json_schema_extra={"pattern": f"^{CLIENT_NAME}$"}),
]
GroupName = Annotated[
    str,
    AfterValidator(_group_name),
    Field(
        description="An organisation (acme) or a team of one (acme/ml).",
        json_schema_extra={"pattern": f"^{GROUP_NAME}$"},
    ),
]
PriorityClass = Annotated[
    str, Field(max_length=64, description="One of the configuration's `classes`.")
]
# Clients of the configuration may have other names.
PathName = Annotated[str, Path(max_length=260)]
Search = Annotated[str, Query(max_length=128, description="What names contain.")]
After = Annotated[str, Query(max_length=260, description="`next` of the page before.")]
Limit = Annotated[int, Query(ge=1, le=1000)]


class Body(BaseModel):
    """What an admin sends; unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")


def actor(request: Request) -> Actor:
    """Who asks, as the guard has found."""
    found: Actor = request.state.actor
    return found


def moment(milliseconds: int) -> datetime | None:
    """A time of the directory; None for 0."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC) if milliseconds else None


def source(fixed: bool) -> Source:
    """Where something is kept, so where it can be changed."""
    return "configuration" if fixed else "directory"
