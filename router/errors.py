"""Errors as OpenAI's clients expect them: a status, a type, and a message that says what to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass(slots=True)
class ApiError(Exception):
    """Ends a request with `status` and an OpenAI-shaped body.

    retry_after_s: seconds after which trying again makes sense. details: more fields of the error.
    """

    status: int
    message: str
    kind: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    retry_after_s: int | None = None
    details: dict[str, Any] = field(default_factory=dict)

    def body(self) -> bytes:
        """The JSON body."""
        return orjson.dumps(
            {
                "error": {
                    "message": self.message,
                    "type": self.kind,
                    "param": self.param,
                    "code": self.code or self.status,
                    **self.details,
                }
            }
        )

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Response headers, beside the content's own."""
        headers: list[tuple[bytes, bytes]] = []
        if self.retry_after_s is not None:
            headers.append((b"retry-after", str(self.retry_after_s).encode()))
        if self.status in (408, 413):  # the rest of the body may never come: don't wait for it
            headers.append((b"connection", b"close"))
        if self.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        return headers


def unauthorized(message: str) -> ApiError:
    """401"""
    return ApiError(401, message, "authentication_error", "invalid_api_key")


def not_allowed(method: str, path: str) -> ApiError:
    """405 for a method."""
    return ApiError(405, f"{path} does not take {method}")


def not_found(path: str) -> ApiError:
    """404 for a path."""
    return ApiError(404, f"there is nothing at {path}; see GET /v1/models and the README")


def unknown_model(model: str, known: list[str]) -> ApiError:
    """404 for a model."""
    names = ", ".join(known)
    return ApiError(
        404, f"the model {model[:200]!r} does not exist; this deployment serves: {names}",
        "not_found_error", "model_not_found", "model",
    )  # fmt: skip


def too_large(limit: int) -> ApiError:
    """413"""
    return ApiError(413, f"the request body is larger than {limit} bytes", code="body_too_large")


def too_slow(timeout_s: float) -> ApiError:
    """408"""
    message = f"the request body has not come within {timeout_s:g} s; send it faster, or less"
    return ApiError(408, message, code="body_timeout")


def unavailable(message: str, retry_after_s: int = 1) -> ApiError:
    """503 with Retry-After."""
    return ApiError(
        503, message, "service_unavailable_error", "unavailable", retry_after_s=retry_after_s
    )
