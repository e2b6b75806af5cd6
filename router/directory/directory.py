"""One router's view of the directory: whose a key is, within a second of any change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from fairness.store.breaker import BreakerOpenError
from fairness.store.contract import StoreUnavailableError
from fairness.store.link import StoreLink
from fairness.store.locate import StoreSource, settings_of
from router.clients import Client, Configured, Group, unknown_key
from router.directory.cache import Entry, KeyCache
from router.directory.follower import Follower
from router.directory.records import GroupRecord, lineage
from router.directory.store import PREFIX, DirectoryStore, Owner
from router.errors import unauthorized, unavailable

logger = logging.getLogger(__name__)

FOLLOW_S = 0.5
RETRY_S = 0.2
LOOKUPS = 8  # at once, each on a connection of its own: strangers' keys must not open thousands

REVOKED = "this API key was revoked; ask your operator for a new one"
EXPIRED = "this API key has expired; ask your operator for a new one"
DISABLED = "the client of this API key is disabled; ask your operator"


class Directory:
    """Looks keys up, remembers them, and follows the log that tells what to forget.

    `start` it to have anything remembered; until then, and where the log can't be followed for the
    first time, every key costs a round trip.
    """

    def __init__(
        self,
        store: DirectoryStore,
        configured: Configured,
        cache: KeyCache | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """clock: seconds since 1970; keys expire by it."""
        self.store = store
        self._cache = KeyCache() if cache is None else cache
        self.configure(configured)
        self._clock = clock
        self._follower = Follower()
        self._lookups = asyncio.Semaphore(LOOKUPS)
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def open(cls, source: StoreSource, configured: Configured) -> Directory:
        """In the store at `source`, which may be away. Raises ValueError for an unreadable URL."""
        return cls(DirectoryStore(StoreLink(settings_of(source), PREFIX)), configured)

    def configure(self, configured: Configured) -> None:
        """Take up a configuration: what it says goes before what the store has."""
        self.configured = configured
        self._fixed_clients = {client.name: client for client in configured.clients}
        self._fixed_groups = {group.name: group for group in configured.groups}
        self._cache.clear()

    def start(self) -> None:
        """Begin to follow the log."""
        self._task = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Stop following; close the connections."""
        while self._task is not None and not self._task.done():
            self._task.cancel()
            # Again if need be, as with the router's link to the queue (turns.py).
            await asyncio.wait({self._task}, timeout=1)
        await self.store.aclose()

    def check(self) -> None:
        """Raises RuntimeError when the log is not followed any more."""
        if self._task is not None and self._task.done():
            raise RuntimeError(f"the directory's log is not followed any more: {self._task}")

    def poke(self) -> None:
        """Read the log now: something was changed through this router."""
        self._wake.set()

    async def client(self, hashed: str) -> Client:
        """The client of a key's hash.

        Known keys cost no round trip (a microsecond), others one. Raises ApiError 401 for a key
        that opens nothing; 503 for one that is not known here while the store is away.
        """
        entry = self._cache.get(hashed) or await self._look_up(hashed)
        if entry is None:
            raise unknown_key()
        if entry.refusal:
            raise unauthorized(entry.refusal)
        if entry.expires and entry.expires <= self._clock() * 1000:
            raise unauthorized(EXPIRED)
        return entry.client

    async def _look_up(self, hashed: str) -> Entry | None:
        if self._cache.is_unknown(hashed):
            return None
        async with self._lookups:
            entry = self._cache.get(hashed)  # while this one waited, another may have asked
            if entry is not None or self._cache.is_unknown(hashed):
                return entry
            try:
                position, owner = await self.store.find(hashed)
            except StoreUnavailableError as error:
                if not isinstance(error, BreakerOpenError):
                    logger.warning("a key could not be looked up: %s", error)
                raise unavailable(
                    "this API key can't be checked now: the store is out of reach; try again", 2
                ) from None
            entry = None if owner is None else self._entry(owner)
            if self._follower.may_keep(position):
                self._cache.put(hashed, entry)
            return entry

    def _entry(self, owner: Owner) -> Entry:
        record = owner.client
        paths = lineage(record.group)
        # The configuration goes first, where it has the same name.
        client = self._fixed_clients.get(record.name) or Client(
            record.name,
            record.weight,
            tuple(map(self._group, paths, (owner.organisation, owner.team))),
            record.limits,
            record.priority_class,
        )
        return Entry(
            client,
            REVOKED if owner.revoked else "" if record.enabled else DISABLED,
            owner.expires,
            (f"client:{record.name}", *(f"group:{path}" for path in paths)),
        )

    def _group(self, path: str, record: GroupRecord | None) -> Group:
        """One that is gone, from a configuration deployed anew, counts like any other."""
        if path in self._fixed_groups:
            return self._fixed_groups[path]
        return Group(path) if record is None else Group(path, record.weight, record.limits)

    async def _follow(self) -> None:
        while True:
            try:
                forget = self._follower.read(await self.store.log(self._follower.since))
            except BreakerOpenError as error:
                await asyncio.sleep(error.retry_in_s)
                continue
            except StoreUnavailableError as error:
                logger.warning("the directory is out of reach: %s", error)
                await asyncio.sleep(RETRY_S)
                continue
            if forget is None:
                self._cache.clear()
            else:
                self._cache.forget(forget)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FOLLOW_S):
                    await self._wake.wait()
            self._wake.clear()
