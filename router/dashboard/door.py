"""What admins reach of a router, and by which path; as it is configured now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from router.admin.app import admin_api
from router.admin.guard import AdminKeys, Guard, Receive, Scope, Send, refuse
from router.dashboard.app import Dashboard
from router.dashboard.sessions import Sessions
from router.directory.directory import Directory
from router.errors import not_found
from router.explain.shelf import Shelf
from router.live.pools import LivePools
from router.turns import Turns


class AdminDoor:
    """ASGI: the admin API under /admin, and under /dashboard the dashboard, if there is one."""

    def __init__(
        self,
        directory: Directory,
        turns: Mapping[str, Turns],
        live: LivePools,
        secret: Callable[[], bytes],
        session_hours: float | None,
        *,
        shelf: Shelf | None = None,
    ) -> None:
        """secret: what sessions are signed with. session_hours: None for no dashboard. shelf: of
        explanations."""
        self._directory = directory
        self._turns = turns
        self._live = live
        self._secret = secret
        self._session_hours = session_hours
        self._shelf = shelf
        self._admin: Guard | None = None
        self._dashboard: Dashboard | None = None

    def configure(self, admin_hashes: Iterable[str]) -> None:
        """Take up the hashes of the admin keys, and what the directory has as configured."""
        hashes = tuple(admin_hashes)
        keys = AdminKeys(hashes)
        admin = admin_api(keys, self._directory, self._turns, self._live, self._shelf)
        self._admin = admin
        if self._session_hours is None:
            return
        sessions = Sessions(self._secret, hashes, self._session_hours * 3600)
        if self._dashboard is None:
            self._dashboard = Dashboard(sessions, admin, self._directory.store)
        else:  # what it remembers of sessions that were ended, and of attempts, stays
            self._dashboard.sessions, self._dashboard.admin = sessions, admin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_below("/dashboard", scope.get("path", "")):
            if self._dashboard is None or scope["type"] != "http":
                await refuse(send, not_found("/dashboard"))
            else:
                await self._dashboard(scope, receive, send)
        elif self._admin is not None:
            await self._admin(scope, receive, send)


def is_below(prefix: str, path: str) -> bool:
    """Is it this path, or one in it?"""
    return (path + "/").startswith(prefix + "/")
