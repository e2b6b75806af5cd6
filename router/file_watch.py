"""Hears of changes to files that others replace, as Kubernetes does with mounted ConfigMaps."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence

EVERY_S = 5.0


async def changes(files: Sequence[str], every_s: float = EVERY_S) -> AsyncIterator[None]:
    """One item each time that one of the files has changed, come or gone, and one at the beginning,
    for what changed before. Costs a `stat` of each file every `every_s` seconds; inotify would miss
    the symbolic links that Kubernetes swaps."""
    seen: list[tuple[int, ...] | None] = []
    while True:
        await asyncio.sleep(every_s)
        now = _state(files)
        if now != seen:
            seen = now
            yield


def _state(files: Sequence[str]) -> list[tuple[int, ...] | None]:
    return [_stamp(file) for file in files]


def _stamp(file: str) -> tuple[int, ...] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size
