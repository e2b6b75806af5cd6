"""Shows the dashboard under played load: `python -m tests.browser.show`.

For people who change the pages: log in with sk-admin, or at /me with sk-alice.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile

from deployments.embedded_store import EmbeddedValkey
from router.directory.records import Actor
from tests.browser.played import ADMIN, FLOODS, Played, played

WHO = Actor("0123456789ab", "127.0.0.1")


async def crowd(stage: Played, count: int) -> None:
    """So many clients in the directory, in groups."""
    store = stage.directory.store
    if not count:
        return
    for n in range(20):
        await store.create_group(WHO, f"org-{n:02}", 1 + n % 3, "", fixed=False)
    for first in range(0, count, 100):
        some = range(first, min(count, first + 100))
        await asyncio.gather(
            *(
                store.create_client(
                    *(WHO, f"client-{n:05}", 1.0 + n % 2, f"org-{n % 20:02}" if n % 3 else ""),
                    enabled=True,
                    fixed=False,
                )
                for n in some
            )
        )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--clients", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, EmbeddedValkey(folder) as valkey:
        async with played(valkey.url, port=options.port) as stage:
            await crowd(stage, options.clients)
            stage.flood(FLOODS)
            print(f"{stage.url}/dashboard with {ADMIN}; {stage.url}/me with sk-alice", flush=True)
            await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
