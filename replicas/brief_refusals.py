"""vLLM's refusals of a body that does not fit, kept short.

vLLM answers 400 with every error that pydantic finds. Of a list that may hold one of some thirty
kinds of items that is a few hundred errors an item, each with its input: 12 kB of `/v1/responses`
made an answer of over 250 MB, and held up the event loop of all clients for longer than a replica
may be silent. So where there are many it is told how many there are, and nothing is made of them.
"""

from __future__ import annotations

from typing import Any

from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError
from starlette.types import ASGIApp

MOST = 500  # errors told one by one


class Brief:
    """A `TypeAdapter` whose errors are few."""

    def __init__(self, adapter: TypeAdapter[Any]) -> None:
        self._adapter = adapter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)

    def validate_python(self, value: Any, **options: Any) -> Any:
        """What the adapter makes of it. Raises ValidationError."""
        try:
            return self._adapter.validate_python(value, **options)
        except ValidationError as error:
            count = error.error_count()
            if count <= MOST:
                raise
            what = PydanticCustomError(
                "too_many_errors",
                "the body does not fit: {count} errors, too many to tell; check the kinds of its "
                "fields, lists first",
                {"count": count},
            )
        raise ValidationError.from_exception_data(
            "body", [{"type": what, "loc": (), "input": None}]
        )


def shorten(app: ASGIApp) -> int:
    """Have all routes of a FastAPI application refuse briefly; how many bodies that concerns."""
    shortened = 0
    for route in getattr(app, "routes", ()):
        if isinstance(route, APIRoute):
            bodies: list[Any] = [*route.dependant.body_params, route.body_field]
            for body in bodies:
                adapter = getattr(body, "_type_adapter", None)
                if adapter is not None and not isinstance(adapter, Brief):
                    body._type_adapter = Brief(adapter)
                    shortened += 1
    return shortened
