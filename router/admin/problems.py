"""What an admin is told when the directory is not as the change needs it."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from router.directory.store import RefusedError
from router.errors import ApiError

T = TypeVar("T")


async def told(change: Awaitable[T], problems: dict[str, ApiError]) -> T:
    """The outcome of a change. Raises the error that `problems` has for its refusal."""
    try:
        return await change
    except RefusedError as error:
        raise problems[error.reason] from None


def no_such(what: str, name: str, param: str | None = None) -> ApiError:
    """404"""
    message = f"there is no {what} {name!r}; list them to see which there are"
    return ApiError(404, message, "not_found_error", f"{what}_not_found", param)


def conflict(message: str, code: str, param: str | None = None) -> ApiError:
    """409"""
    return ApiError(409, message, "conflict_error", code, param)


def taken(what: str, name: str) -> ApiError:
    """409: the name is in use."""
    return conflict(
        f"there is a {what} {name!r} already; change that, or choose another name",
        "name_taken",
        "name",
    )


def in_configuration(what: str, name: str, where: str) -> ApiError:
    """409: only a new deployment changes it."""
    return conflict(
        f"the {what} {name!r} is part of the configuration: change it under `{where}` of the Serve "
        "config file and deploy that again",
        "in_configuration",
    )
