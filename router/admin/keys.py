"""/admin/keys: what clients show. A key is told once, in the answer that makes it."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field

from router.admin.fields import Body, Source, actor, moment, source
from router.admin.problems import conflict, in_configuration, no_such, told
from router.clients import hash_key, key_id
from router.directory.directory import Directory
from router.directory.records import KeyRecord, new_key
from router.errors import ApiError

LONGEST_S = 100 * 365 * 86400
Seconds = Annotated[int, Field(ge=1, le=LONGEST_S)]
KeyId = Annotated[str, Path(pattern="^[0-9a-f]{12}$", description="As lists show it.")]


class NewKey(Body):
    """A key to be made. expires_in_s: null for good."""

    client: Annotated[str, Field(min_length=1, max_length=128)]
    label: Annotated[str, Field(max_length=200, description="What it is for.")] = ""
    expires_in_s: Seconds | None = None


class Rotation(Body):
    """overlap_s: how long the old key goes on working (a day, unless told otherwise)."""

    overlap_s: Annotated[int, Field(ge=0, le=LONGEST_S)] = 86400


class KeyView(BaseModel):
    """A key, by its id: the first 12 digits of what `fairlane hash-key` says of it."""

    id: str
    client: str
    label: str
    state: Literal["active", "expired", "revoked"]
    created_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    source: Source


class MadeKey(KeyView):
    """A new key. key: in the clear, this once; nobody can tell it again."""

    key: str


class KeyList(BaseModel):
    """All keys of a client, oldest first."""

    keys: list[KeyView]


def keys_router(directory: Directory) -> APIRouter:
    """Routes of the resource."""
    api = APIRouter(prefix="/keys", tags=["keys"])
    store = directory.store
    fixed_clients = frozenset(client.name for client in directory.configured.clients)
    fixed = {
        key_id(hashed): KeyRecord(key_id(hashed), client.name, fixed=True)
        for hashed, client in directory.configured.keys
    }

    def problems(client: str, key: str) -> dict[str, ApiError]:
        full = (
            f"{client or 'the client'} has as many keys as one may have (1000); those that ended "
            "are forgotten after 30 days"
        )
        return {
            "unknown": no_such("key", key) if key else no_such("client", client, "client"),
            "dead": conflict("this key has ended already: make a new one instead", "key_ended"),
            "too_many_keys": conflict(full, "too_many_keys"),
            "id_taken": conflict("another key has the same id; try again", "id_taken"),
        }

    def free(key: str) -> None:
        if key in fixed:
            raise in_configuration("key", key, "clients[].key_hashes")

    @api.get("")
    async def list_keys(client: Annotated[str, Query(max_length=128)]) -> KeyList:
        """The keys of a client; those that have ended too, for 30 days or more."""
        ours = [record for record in fixed.values() if record.client == client]
        records = await store.keys(client)
        none = not ours and not records and client not in fixed_clients
        if none and not await store.clients([client]):
            raise no_such("client", client, "client")
        return KeyList(keys=[_view(record) for record in ours + records])

    @api.post("", status_code=201)
    async def create_key(body: NewKey, request: Request) -> MadeKey:
        """Make a key. The answer is the only place where it is told."""
        if body.client in fixed_clients:
            raise in_configuration("client", body.client, "clients")
        key = new_key()
        lifetime_ms = (body.expires_in_s or 0) * 1000
        change = store.create_key(
            actor(request), body.client, hash_key(key), body.label, lifetime_ms
        )
        record = await told(change, problems(body.client, ""))
        directory.poke()
        return _made(record, key)

    @api.get("/{key}")
    async def get_key(key: KeyId) -> KeyView:
        """One key, by its id."""
        record = fixed.get(key) or await store.key(key)
        if record is None:
            raise no_such("key", key)
        return _view(record)

    @api.post("/{key}/rotate", status_code=201)
    async def rotate_key(key: KeyId, request: Request, body: Rotation | None = None) -> MadeKey:
        """Make a new key in place of this one, which goes on working for a while."""
        free(key)
        new = new_key()
        overlap_ms = (Rotation() if body is None else body).overlap_s * 1000
        change = store.rotate_key(actor(request), key, hash_key(new), overlap_ms)
        record = await told(change, problems("", key))
        directory.poke()
        return _made(record, new)

    @api.post("/{key}/revoke")
    async def revoke_key(key: KeyId, request: Request) -> KeyView:
        """End a key at once, everywhere within a second. Streams under way go on."""
        free(key)
        record = await told(store.revoke_key(actor(request), key), problems("", key))
        directory.poke()
        return _view(record)

    return api


def _view(record: KeyRecord) -> KeyView:
    return KeyView(
        id=record.id,
        client=record.client,
        label=record.label,
        state=_state(record),
        created_at=moment(record.created),
        expires_at=moment(record.expires),
        revoked_at=moment(record.revoked),
        source=source(record.fixed),
    )


def _made(record: KeyRecord, key: str) -> MadeKey:
    return MadeKey(key=key, **_view(record).model_dump())


def _state(record: KeyRecord) -> Literal["active", "expired", "revoked"]:
    if record.revoked:
        return "revoked"
    return "expired" if record.expires and record.expires <= time.time() * 1000 else "active"
