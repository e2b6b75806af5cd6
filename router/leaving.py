"""Leaving: what a router does when Serve ends it.

Serve takes it out of HAProxy, waits until no request is open, and only then says a word to our
code; what is still open when its patience ends it kills, and clients see a torn connection. A page
of the dashboard watches a stream without an end: open in a browser, it would keep a router for all
that time. So a router finds out by itself that it is to end (`front_door.draining`), ends what
never would, and after `drain_s` what has not, in words.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

LOOK_S = 1.0  # between two looks


async def leave_in_time(
    draining: Callable[[], Awaitable[bool]],
    drain_s: float,
    *,
    begin: Callable[[], None],
    end: Callable[[], None],
) -> None:
    """Wait until `draining`, then `begin` to leave, and `end` after `drain_s` seconds."""
    while not await draining():  # noqa: ASYNC110 (nobody would set an event)
        await asyncio.sleep(LOOK_S)
    begin()
    await asyncio.sleep(drain_s)
    end()
