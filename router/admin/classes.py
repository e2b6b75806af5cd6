"""/admin/queue/classes: priority classes, and what each is owed now."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter
from pydantic import BaseModel, Field

from fairness.classes import Classes, class_group
from fairness.store.contract import GroupState
from router.turns import Turns


class ClassView(BaseModel):
    """A priority class in one pool."""

    name: str
    floor: float = Field(description="The share of all service that it is owed while it waits.")
    owed: float = Field(
        description="Service that it is owed; above 0 it goes before those that are owed less, "
        "below 0 it has had more than its floor. Always 0 of a class without a floor."
    )
    waiting: int = Field(description="Clients, or groups, in it that have something waiting.")
    running: int = Field(description="Leases of its clients.")


def classes_router(turns: Mapping[str, Turns]) -> APIRouter:
    """Routes of the resource. turns: pool -> its queue."""
    api = APIRouter(prefix="/queue", tags=["queue"])

    @api.get("/classes")
    async def queue_classes() -> dict[str, list[ClassView]]:
        """Pool -> its priority classes, the highest first; none without `classes` in the
        configuration. O(groups)."""
        return {
            name: views(pool.classes, await pool.groups() if pool.classes else [])
            for name, pool in turns.items()
        }

    return api


def views(classes: Classes, groups: list[GroupState]) -> list[ClassView]:
    """What the groups of a pool say of its classes. One that nobody has used yet has no group."""
    found = {state.group: state for state in groups}
    rows = []
    for name, floor in classes.classes:
        state = found.get(class_group(name)) or GroupState(class_group(name), 1.0, 0.0, 0, 0)
        rows.append(
            ClassView(
                name=name,
                floor=floor,
                owed=state.owed or 0.0,
                waiting=state.waiting,
                running=state.running,
            )
        )
    return rows
