"""/admin/clients: who is billed for service."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, model_validator

from router.admin.fields import (
    After,
    Body,
    ClientName,
    GroupName,
    Limit,
    PathName,
    PriorityClass,
    Search,
    Source,
    Weight,
    actor,
    moment,
    source,
)
from router.admin.problems import in_configuration, no_such, taken, told
from router.clients import Client
from router.directory.directory import Directory
from router.directory.pages import matches, page
from router.directory.records import ClientRecord
from router.errors import ApiError
from router.level_limits import LevelLimits


class NewClient(Body):
    """A client to be made."""

    name: ClientName
    weight: Weight = 1.0
    group: GroupName | None = None
    priority_class: PriorityClass | None = None
    enabled: bool = True
    limits: LevelLimits = LevelLimits()


class ClientChange(Body):
    """What to change; what is left out stays. `group: null` takes it out of its group,
    `priority_class: null` puts it into the first. `limits` are replaced as a whole: `{}` takes all
    away."""

    weight: Weight | None = None
    group: GroupName | None = None
    priority_class: PriorityClass | None = None
    enabled: bool | None = None
    limits: LevelLimits | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> ClientChange:
        if not self.model_fields_set:
            raise ValueError(
                "name at least one of weight, group, priority_class, enabled and limits"
            )
        return self


class ClientView(BaseModel):
    """A client."""

    name: str
    weight: float
    group: str | None
    priority_class: str | None
    enabled: bool
    limits: dict[str, float]
    created_at: datetime | None
    source: Source


class ClientPage(BaseModel):
    """Some clients. next: give it as `after` for those that follow; null: there are no more."""

    clients: list[ClientView]
    next: str | None


def clients_router(directory: Directory) -> APIRouter:
    """Routes of the resource."""
    api = APIRouter(prefix="/clients", tags=["clients"])
    store = directory.store
    fixed = {client.name: client for client in directory.configured.clients}
    fixed_groups = frozenset(group.name for group in directory.configured.groups)

    def problems(name: str, group: str | None) -> dict[str, ApiError]:
        return {
            "taken": taken("client", name),
            "unknown": no_such("client", name),
            "no_group": no_such("group", group or "", "group"),
        }

    def free(name: str) -> None:
        if name in fixed:
            raise in_configuration("client", name, "clients")

    @api.get("")
    async def list_clients(
        search: Search = "",
        group: Annotated[str, Query(max_length=260, description="Only its own members.")] = "",
        after: After = "",
        limit: Limit = 100,
    ) -> ClientPage:
        """All clients by name, those of the configuration included."""
        ours = [
            name
            for name, client in fixed.items()
            if matches(name, search) and (not group or _group_of(client) == group)
        ]
        stored = await store.client_names(after, search, group, limit)
        names = page(ours, stored, after, limit)
        records = await store.clients([name for name in names.names if name not in fixed])
        views = [
            _fixed_view(fixed[name]) if name in fixed else _view(records[name])
            for name in names.names
            if name in fixed or name in records  # one may have been removed in between
        ]
        return ClientPage(clients=views, next=names.reached)

    @api.post("", status_code=201)
    async def create_client(body: NewClient, request: Request) -> ClientView:
        """Make a client; then give it keys (POST /admin/keys)."""
        free(body.name)
        _check_class(body.priority_class, directory.configured.classes)
        group = body.group or ""
        change = store.create_client(
            actor(request),
            body.name,
            body.weight,
            group,
            enabled=body.enabled,
            fixed=group in fixed_groups,
            limits=body.limits.limits(),
            priority_class=body.priority_class or "",
        )
        record = await told(change, problems(body.name, group))
        directory.poke()
        return _view(record)

    @api.get("/{name:path}")
    async def get_client(name: PathName) -> ClientView:
        """One client."""
        if name in fixed:
            return _fixed_view(fixed[name])
        record = (await store.clients([name])).get(name)
        if record is None:
            raise no_such("client", name)
        return _view(record)

    @api.patch("/{name:path}")
    async def change_client(name: PathName, body: ClientChange, request: Request) -> ClientView:
        """Change its weight or limits, move it, disable it; everywhere within a second."""
        free(name)
        _check_class(body.priority_class, directory.configured.classes)
        moves = "group" in body.model_fields_set
        change = store.change_client(
            actor(request),
            name,
            weight=body.weight,
            enabled=body.enabled,
            group=(body.group or "") if moves else None,
            fixed=body.group in fixed_groups,
            limits=None if body.limits is None else body.limits.limits(),
            priority_class=_class_to_set(body),
        )
        record = await told(change, problems(name, body.group))
        directory.poke()
        return _view(record)

    @api.delete("/{name:path}")
    async def remove_client(name: PathName, request: Request) -> ClientView:
        """Remove it with all its keys. What it has used stays known to the queue."""
        try:
            record = await told(store.remove_client(actor(request), name), problems(name, None))
        except ApiError:
            free(name)
            raise
        directory.poke()
        return _view(record)

    return api


def _check_class(name: str | None, classes: tuple[str, ...]) -> None:
    if name is not None and name not in classes:
        known = ", ".join(classes) or "there are none"
        what = f"priority_class: {name!r} is not under `classes` of the configuration ({known})"
        raise ApiError(400, what, param="priority_class")


def _class_to_set(body: ClientChange) -> str | None:
    return (body.priority_class or "") if "priority_class" in body.model_fields_set else None


def _view(record: ClientRecord) -> ClientView:
    return ClientView(
        name=record.name,
        weight=record.weight,
        group=record.group or None,
        priority_class=record.priority_class or None,
        enabled=record.enabled,
        limits=record.limits.given(),
        created_at=moment(record.created),
        source=source(record.fixed),
    )


def _fixed_view(client: Client) -> ClientView:
    record = ClientRecord(
        client.name,
        client.weight,
        _group_of(client),
        fixed=True,
        limits=client.limits,
        priority_class=client.priority_class,
    )
    return _view(record)


def _group_of(client: Client) -> str:
    return client.groups[-1].name if client.groups else ""
