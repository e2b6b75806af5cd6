"""The tree of fields that a pydantic model is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Loc = tuple[int | str, ...]


def shown(loc: Sequence[int | str]) -> str:
    """A place as people write it: `clients[0].weight`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    return text.removeprefix(".")


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds: one, or several in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := model_in(part))), None)


def field_at(model: type[BaseModel], loc: Loc) -> FieldInfo | None:
    """The innermost field on the way to a place, None where that leaves the model at once."""
    field: FieldInfo | None = None
    inside: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, int):
            continue
        if inside is None or part not in inside.model_fields:
            break
        field = inside.model_fields[part]
        inside = model_in(field.annotation)
    return field


def model_at(model: type[BaseModel], loc: Loc) -> type[BaseModel] | None:
    """The model at a place, None where there is a plain value or nothing."""
    field = field_at(model, loc)
    return model if field is None else model_in(field.annotation)


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """All fields that are no sections, by their paths (`clients[].weight`)."""
    for name, field in model.model_fields.items():
        inside = model_in(field.annotation)
        if inside is None:
            yield prefix + name, field
        elif get_origin(field.annotation) is dict:
            yield prefix + name, field
            yield from leaves(inside, f"{prefix}{name}.NAME.")
        else:
            many = "" if inside is field.annotation else "[]"
            yield from leaves(inside, f"{prefix}{name}{many}.")
