"""The ASGI application under /dashboard.

path                        what
/dashboard, /dashboard/login, /dashboard/static/...   pages and what they are made of: for anyone
/dashboard/session          POST {"key"}: log in; GET: who am I; DELETE: log out
/dashboard/admin/...        the admin API, for whoever is logged in; changes need the header
                            `X-Fairlane-CSRF`, which only our own pages can know

A stream (`/dashboard/admin/live/events`) ends with its session.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable
from typing import Any, cast

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from fairness.store.contract import StoreUnavailableError
from router.admin.guard import Asgi, Guard, Receive, Scope, Send, origin_of, refuse
from router.bodies import ClientGoneError, read_body
from router.dashboard.ended import EndedSessions
from router.dashboard.headers import Hardened
from router.dashboard.refusal import told
from router.dashboard.sessions import Session, Sessions, cookie_of, set_cookie
from router.dashboard.static_files import static_file
from router.dashboard.throttle import Throttle
from router.directory.records import Actor
from router.directory.store import DirectoryStore
from router.errors import ApiError

logger = logging.getLogger(__name__)

CSRF = "x-fairlane-csrf"
READS = frozenset({"GET", "HEAD"})
LOGIN_BYTES = 4096
NOT_LOGGED_IN = ApiError(401, "log in at /dashboard/login", "authentication_error", "no_session")


class Dashboard:
    """ASGI. What it needs of the configuration may change while it runs: `sessions`, `admin`."""

    def __init__(self, sessions: Sessions, admin: Guard, directory: DirectoryStore) -> None:
        self.sessions = sessions
        self.admin = admin
        self._directory = directory
        self._ended = EndedSessions(directory)
        self._throttle = Throttle()
        self._app: Asgi = Hardened(
            Starlette(
                routes=[
                    Route("/dashboard", _page("index.html")),
                    Route("/dashboard/", _to("/dashboard")),
                    Route("/dashboard/login", _page("login.html")),
                    Route("/dashboard/session", self._who, methods=["GET"]),
                    Route("/dashboard/session", self._log_in, methods=["POST"]),
                    Route("/dashboard/session", self._log_out, methods=["DELETE"]),
                    Route("/dashboard/static/{path:path}", _static),
                    Mount("/dashboard/admin", cast(ASGIApp, self._pass_on)),
                ],
                exception_handlers={ApiError: told, HTTPException: told},
            )
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientGoneError:
            pass  # nobody to answer
        except Exception:  # Starlette has answered 500 and raises it again for whoever logs
            logger.exception("a request of the dashboard failed by a fault of the router")

    async def session(self, cookies: str | None) -> Session | None:
        """Who shows this Cookie header."""
        session = self.sessions.check(cookie_of(cookies))
        return None if session is None or await self._ended.has(session) else session

    async def _required(self, request: Request) -> Session:
        session = await self.session(request.headers.get("cookie"))
        if session is None:
            raise NOT_LOGGED_IN
        return session

    async def _who(self, request: Request) -> Response:
        return _answer(_view(await self._required(request)))

    async def _log_in(self, request: Request) -> Response:
        if not request.headers.get("content-type", "").startswith("application/json"):
            raise ApiError(415, "send JSON")  # no form of another site can
        origin = origin_of(dict(request.scope), _last(request.headers.get("x-forwarded-for")))
        wait_s = self._throttle.wait_s(origin)
        if wait_s:
            raise ApiError(
                429,
                "too many attempts; wait a moment, then try again",
                "rate_limit_error",
                "too_many_attempts",
                retry_after_s=int(wait_s) + 1,
            )
        length = request.headers.get("content-length")
        body = await read_body(request.receive, length, LOGIN_BYTES)  # type: ignore[arg-type]
        begun = self.sessions.begin(_key(body))
        if begun is None:
            self._throttle.failed(origin)
            message = "this is not an admin key of this deployment"
            raise ApiError(403, message, "authentication_error", "invalid_api_key")
        session, value = begun
        await self._note("dashboard.login", session, origin)
        seconds = session.expires - int(self.sessions.now())
        cookie = set_cookie(value, seconds, secure=_is_https(request))
        return _answer(_view(session), {"set-cookie": cookie})

    async def _log_out(self, request: Request) -> Response:
        session = await self._required(request)
        _check_csrf(session, request.headers.get(CSRF))
        try:
            await self._ended.end(session)
        except StoreUnavailableError as error:  # here it has ended, and the browser forgets it
            logger.warning("other routers don't know that a session was ended: %s", error)
        await self._note("dashboard.logout", session, origin_of(dict(request.scope), None))
        cookie = set_cookie("", 0, secure=_is_https(request))
        return _answer({"ended": True}, {"set-cookie": cookie})

    async def _note(self, what: str, session: Session, origin: str) -> None:
        try:
            who = Actor(session.admin, origin)
            await self._directory.note(who, what, "dashboard", {"session": session.name[:6]})
        except StoreUnavailableError as error:
            logger.warning("%s is not in the audit log: %s", what, error)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: the admin API. Each chunk of a stream is sent only while the session holds."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        cookies = headers.get(b"cookie")
        session = await self.session(cookies)
        try:
            if session is None:
                raise NOT_LOGGED_IN
            if scope["method"] not in READS:
                _check_csrf(session, headers.get(CSRF.encode()))
        except ApiError as error:
            await refuse(send, error)
            return
        over = asyncio.Event()

        async def guarded(message: Scope) -> None:
            if message["type"] == "http.response.body" and message.get("more_body"):
                if await self.session(cookies) is None:
                    over.set()
                if over.is_set():
                    return
            await send(message)

        async def heard() -> Scope:
            """What comes; once the session is over, that the client has left."""
            return await _first(receive, over)

        path = scope["path"].removeprefix("/dashboard")
        kept = [pair for pair in scope["headers"] if pair[0] not in (b"cookie", b"authorization")]
        inner = scope | {"path": path, "raw_path": path.encode(), "root_path": "", "headers": kept}
        inner["asgi"] = {"version": "3.0", "spec_version": "2.3"}  # streams listen to `receive`
        await self.admin.admit(session.admin, inner, heard, guarded)
        if over.is_set():
            await send({"type": "http.response.body", "body": b""})


async def _first(receive: Receive, over: asyncio.Event) -> Scope:
    coming = asyncio.ensure_future(receive())
    ending = asyncio.ensure_future(over.wait())
    try:
        await asyncio.wait({coming, ending}, return_when=asyncio.FIRST_COMPLETED)
        return coming.result() if coming.done() else {"type": "http.disconnect"}
    finally:
        for task in (coming, ending):
            task.cancel()
        await asyncio.gather(coming, ending, return_exceptions=True)


def _page(name: str) -> Callable[[Request], Any]:
    async def page(request: Request) -> Response:
        return static_file(request, name)

    return page


async def _static(request: Request) -> Response:
    return static_file(request, request.path_params["path"])


def _to(path: str) -> Callable[[Request], Any]:
    async def there(_: Request) -> Response:
        return RedirectResponse(path, 308)

    return there


def _view(session: Session) -> dict[str, Any]:
    return {"admin": session.admin, "expires_at": session.expires, "csrf": session.csrf}


def _check_csrf(session: Session, shown: str | None) -> None:
    if not hmac.compare_digest(session.csrf.encode(), (shown or "").encode()):
        message = f"a change needs the header {CSRF}, with `csrf` of GET /dashboard/session"
        raise ApiError(403, message, "permission_error", "csrf")


def _key(body: bytes) -> str:
    try:
        key = orjson.loads(body)["key"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        key = None
    if not isinstance(key, str) or not key.strip():
        raise ApiError(400, 'send {"key": "an admin key"}', param="key")
    return key.strip()


def _last(forwarded: str | None) -> str | None:
    """Of X-Forwarded-For what the nearest proxy has written; the rest is anyone's word."""
    return None if forwarded is None else forwarded.rpartition(",")[2].strip()


def _is_https(request: Request) -> bool:
    return "https" in (request.url.scheme, request.headers.get("x-forwarded-proto"))


def _answer(content: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(orjson.dumps(content), 200, headers, "application/json")
