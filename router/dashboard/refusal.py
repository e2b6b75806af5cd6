"""Refusals of what serves pages, in the same shape as everywhere else."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from router.errors import ApiError, not_allowed, not_found


def refusal(error: ApiError) -> Response:
    """The error as an answer."""
    headers = {name.decode(): value.decode() for name, value in error.headers()}
    return Response(error.body(), error.status, headers, "application/json")


async def told(request: Request, error: Exception) -> Response:
    """For Starlette: our own errors, and its own for a path or a method that it does not know."""
    if isinstance(error, HTTPException):
        path = request.scope["path"]
        known = {404: not_found(path), 405: not_allowed(request.method, path)}
        answer = refusal(known.get(error.status_code, ApiError(error.status_code, error.detail)))
        answer.headers.update(error.headers or {})
        return answer
    if isinstance(error, ApiError):
        return refusal(error)
    raise error
