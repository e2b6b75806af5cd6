"""/admin/groups: organisations and teams."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter, Request
from pydantic import BaseModel, model_validator

from router.admin.fields import (
    After,
    Body,
    GroupName,
    Limit,
    PathName,
    Search,
    Source,
    Weight,
    actor,
    moment,
    source,
)
from router.admin.problems import conflict, in_configuration, no_such, taken, told
from router.directory.directory import Directory
from router.directory.pages import matches, page
from router.directory.records import GroupRecord, organisation_of
from router.errors import ApiError
from router.level_limits import LevelLimits


class NewGroup(Body):
    """A group to be made: `acme`, or `acme/ml` where there is `acme`."""

    name: GroupName
    weight: Weight = 1.0
    limits: LevelLimits = LevelLimits()


class GroupChange(Body):
    """What to change; what is left out stays. `limits` are replaced as a whole: `{}` takes all
    away."""

    weight: Weight | None = None
    limits: LevelLimits | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> GroupChange:
        if not self.model_fields_set:
            raise ValueError("name at least one of weight and limits")
        return self


class GroupView(BaseModel):
    """A group."""

    name: str
    weight: float
    limits: dict[str, float]
    created_at: datetime | None
    source: Source


class GroupPage(BaseModel):
    """Some groups. next: give it as `after` for those that follow; null: there are no more."""

    groups: list[GroupView]
    next: str | None


def groups_router(directory: Directory) -> APIRouter:
    """Routes of the resource."""
    api = APIRouter(prefix="/groups", tags=["groups"])
    store = directory.store
    fixed = {
        group.name: GroupRecord(group.name, group.weight, fixed=True, limits=group.limits)
        for group in directory.configured.groups
    }

    def problems(name: str) -> dict[str, ApiError]:
        return {
            "taken": taken("group", name),
            "unknown": no_such("group", name),
            "no_organisation": no_such("group", organisation_of(name), "name"),
            "has_members": conflict(
                f"the group {name!r} has members: move or remove its clients and teams first",
                "group_not_empty",
            ),
        }

    def free(name: str) -> None:
        if name in fixed:
            raise in_configuration("group", name, "groups")

    @api.get("")
    async def list_groups(search: Search = "", after: After = "", limit: Limit = 100) -> GroupPage:
        """All groups by name, those of the configuration included."""
        ours = [name for name in fixed if matches(name, search)]
        names = page(ours, await store.group_names(after, search, limit), after, limit)
        records = await store.groups(list(names.names)) | fixed
        views = [_view(records[name]) for name in names.names if name in records]
        return GroupPage(groups=views, next=names.reached)

    @api.post("", status_code=201)
    async def create_group(body: NewGroup, request: Request) -> GroupView:
        """Make an organisation, or a team in one."""
        free(body.name)
        organisation = organisation_of(body.name)
        change = store.create_group(
            actor(request),
            body.name,
            body.weight,
            organisation,
            fixed=organisation in fixed,
            limits=body.limits.limits(),
        )
        record = await told(change, problems(body.name))
        directory.poke()
        return _view(record)

    @api.get("/{name:path}")
    async def get_group(name: PathName) -> GroupView:
        """One group."""
        record = fixed.get(name) or (await store.groups([name])).get(name)
        if record is None:
            raise no_such("group", name)
        return _view(record)

    @api.patch("/{name:path}")
    async def change_group(name: PathName, body: GroupChange, request: Request) -> GroupView:
        """Change its weight or limits; everywhere within a second."""
        free(name)
        limits = None if body.limits is None else body.limits.limits()
        change = store.change_group(actor(request), name, weight=body.weight, limits=limits)
        record = await told(change, problems(name))
        directory.poke()
        return _view(record)

    @api.delete("/{name:path}")
    async def remove_group(name: PathName, request: Request) -> GroupView:
        """Remove a group that nobody is in."""
        free(name)
        record = await told(store.remove_group(actor(request), name), problems(name))
        directory.poke()
        return _view(record)

    return api


def _view(record: GroupRecord) -> GroupView:
    return GroupView(
        name=record.name,
        weight=record.weight,
        limits=record.limits.given(),
        created_at=moment(record.created),
        source=source(record.fixed),
    )
