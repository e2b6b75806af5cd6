"""vLLM's refusals of a body that does not fit, made early and kept short.

vLLM answers 400 with every error that pydantic finds. Of a list that may hold one of some thirty
kinds of items that is a few hundred errors an item, each with its input: 12 kB of `/v1/responses`
made an answer of over 250 MB, and took seven milliseconds an item on the event loop of all clients,
longer in all than a replica may be silent. So a list is refused at its first item that does not
fit (pydantic's `fail_fast`: of 1,000 such items 1 ms is left), and where there are many errors even
so, it is told how many.
"""

from __future__ import annotations

from typing import Any

from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError, SchemaValidator
from starlette.types import ASGIApp

MOST = 500  # errors told one by one
MANY = ("list", "tuple", "set", "frozenset")


class Brief:
    """A `TypeAdapter` whose errors are few."""

    def __init__(self, adapter: TypeAdapter[Any]) -> None:
        self._adapter = adapter
        # Models have validators of their own, made of their own schemas: those are not to be used.
        self._validator = SchemaValidator(_fail_fast(adapter.core_schema), _use_prebuilt=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._adapter, name)

    def validate_python(self, value: Any, **options: Any) -> Any:
        """What the adapter makes of it. Raises ValidationError."""
        try:
            return self._validator.validate_python(value, **options)
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


def _fail_fast(schema: Any) -> Any:
    """A copy of a core schema in which each list ends at its first error."""
    if isinstance(schema, dict):
        copy = {key: _fail_fast(value) for key, value in schema.items()}
        return copy | {"fail_fast": True} if copy.get("type") in MANY else copy
    if isinstance(schema, (list, tuple)):
        return type(schema)(_fail_fast(each) for each in schema)
    return schema
