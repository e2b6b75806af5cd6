"""The FastAPI application under /admin. Its description is at /admin/openapi.json."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import APIRouter, FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException

from fairness.store.contract import StoreUnavailableError
from router.admin.audit import audit_router
from router.admin.classes import classes_router
from router.admin.clients import clients_router
from router.admin.explain import explain_router
from router.admin.groups import groups_router
from router.admin.guard import AdminKeys, Guard
from router.admin.keys import keys_router
from router.admin.live import live_router
from router.admin.queue import queue_router
from router.admin.usage import usage_router
from router.directory.directory import Directory
from router.errors import ApiError, unavailable
from router.explain.shelf import Shelf
from router.live.pools import LivePools
from router.turns import Turns


def admin_api(
    keys: AdminKeys,
    directory: Directory,
    turns: Mapping[str, Turns],
    live: LivePools | None = None,
    shelf: Shelf | None = None,
) -> Guard:
    """The whole API, behind its guard. turns: pool -> its queue; live: what is seen of it. shelf:
    None where nothing is explained."""
    app = FastAPI(
        title="Fairlane admin API",
        description="Clients, groups, API keys, the state of the queue, usage, what became of "
        "requests, and the audit log.",
        version="1",
        openapi_url="/admin/openapi.json",
        docs_url=None,  # those pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    api = APIRouter(prefix="/admin", dependencies=[Security(HTTPBearer(auto_error=False))])
    for router in (
        clients_router(directory),
        groups_router(directory),
        keys_router(directory),
        queue_router(directory, turns),
        classes_router(turns),
        usage_router(directory, turns),
        explain_router(shelf),
        audit_router(directory),
        live_router(directory, live or {}, turns),
    ):
        api.include_router(router)
    app.include_router(api)

    @app.exception_handler(ApiError)
    async def refused(_: Request, error: ApiError) -> Response:
        return _answer(error)

    @app.exception_handler(StoreUnavailableError)
    async def store_away(_: Request, error: StoreUnavailableError) -> Response:
        return _answer(
            unavailable("the store is out of reach; see whether it was done, then try again", 2)
        )

    @app.exception_handler(RequestValidationError)
    async def unsound(_: Request, error: RequestValidationError) -> Response:
        return _answer(_first_of(error))

    @app.exception_handler(HTTPException)
    async def no_such_path(request: Request, error: HTTPException) -> Response:
        what = f"{request.method} {request.url.path}"
        message = f"{what}: {error.detail}; see /admin/openapi.json for what there is"
        return _answer(ApiError(error.status_code, message))

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> Response:
        message = "the router failed on this request"
        return _answer(ApiError(500, message, "server_error", "internal_error"))

    return Guard(keys, app)


def _answer(error: ApiError) -> Response:
    headers = {name.decode(): value.decode() for name, value in error.headers()}
    return Response(error.body(), error.status, headers, "application/json")


def _first_of(error: RequestValidationError) -> ApiError:
    """The first thing to mend, by the name of its field. What was sent is not repeated."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return ApiError(400, "the request body is not valid JSON")
    field = ".".join(str(part) for part in first["loc"][1:])
    message = first["msg"].removeprefix("Value error, ")
    return ApiError(400, f"{field or 'the request body'}: {message}", param=field or None)
