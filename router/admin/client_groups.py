"""In which group each client is, of those that are gone too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fairness.classes import split_class
from router.directory.directory import Directory
from router.turns import Turns

PAGE = 1000


class ClientGroups:
    """Looks groups up for one answer, and remembers them so long.

    The configuration says it, else the directory; of a client that is in neither any more, the
    queue, which knows where it last stood.
    """

    def __init__(self, directory: Directory, turns: Mapping[str, Turns]) -> None:
        """turns: pool -> its queue."""
        self._store = directory.store
        self._turns = turns
        self._groups = {
            client.name: client.groups[-1].name if client.groups else ""
            for client in directory.configured.clients
        }
        self._last: dict[str, str] | None = None  # of all that the queue knows

    async def of(self, clients: Iterable[str]) -> Mapping[str, str]:
        """Client -> path of its team or organisation; "" for none. Others may be in it, too.

        One round trip for each thousand clients asked for first now. Raises StoreUnavailableError.
        """
        new = [client for client in clients if client not in self._groups]
        for first in range(0, len(new), PAGE):
            records = await self._store.clients(new[first : first + PAGE])
            self._groups |= {name: record.group for name, record in records.items()}
        gone = [client for client in new if client not in self._groups]
        if gone:
            last = await self._last_groups()
            self._groups |= {client: last.get(client, "") for client in gone}
        return self._groups

    async def _last_groups(self) -> dict[str, str]:
        if self._last is None:
            self._last = {
                state.client: split_class(state.group)[1].removesuffix("/")
                for pool in self._turns.values()
                for state in await pool.clients()
            }
        return self._last
