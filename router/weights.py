"""Weights of clients, for those who watch a pool: of the configuration, else of the directory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from router.directory.directory import Directory

FRESH_S = 60.0
LOOKUPS = 1000  # a call; the rest is asked for the next time


class Weights:
    """Call it with names; those that nobody knows (yet) are missing in the answer.

    What the directory said is believed for a minute, which is good enough for a display. One round
    trip for names not known yet, none otherwise. Raises StoreUnavailableError.
    """

    def __init__(self, directory: Directory, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory
        self._clock = clock
        self._found: dict[str, float] = {}
        self._until = 0.0

    async def __call__(self, names: Sequence[str]) -> Mapping[str, float]:
        if self._clock() >= self._until:
            self._until = self._clock() + FRESH_S
            self._found = {}
        fixed = {client.name: client.weight for client in self._directory.configured.clients}
        asked = [name for name in names if name not in fixed and name not in self._found]
        if asked:
            records = await self._directory.store.clients(asked[:LOOKUPS])
            self._found |= {name: record.weight for name, record in records.items()}
        return self._found | fixed
