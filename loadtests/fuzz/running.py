"""A whole application that somebody has started: what must be as before when the fuzzing is over.

It goes through HAProxy to whichever router, and to real engines. Only this machine's: an address
that is not loopback is refused. The admin cases make clients and groups and change the policy; the
policy is put back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx

from loadtests.driver import require_loopback
from loadtests.fuzz.bodies import MODEL
from loadtests.fuzz.check import Address
from loadtests.fuzz.run import Find, Outcome, Target, fuzz

LOOKS = 24  # whichever router answers: HAProxy spreads new connections over them
SETTLED_S = 60.0


class Running:
    """The application at a URL."""

    def __init__(
        self, url: str, key: str, admin_key: str, models: tuple[str, ...] = (MODEL,)
    ) -> None:
        """Raises ValueError for a URL that is not this machine's."""
        try:
            require_loopback(url)
        except ValueError:
            raise ValueError(f"{url} is not this machine: only what runs here is fuzzed") from None
        parts = urlsplit(url)
        self.target = Target(
            Address(parts.hostname or "127.0.0.1", parts.port or 80),
            key,
            admin_key,
            (key, admin_key),
            models=models,
        )
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {admin_key}"}

    async def state(self) -> dict[str, Any]:
        """What fuzzing must not change: the routers by name (one that restarts has a new one), the
        policy, and how many replicas take requests (of an application that has just begun more may
        come). Raises httpx.HTTPError."""
        async with httpx.AsyncClient(headers=self._headers, timeout=30) as http:
            routers = {(await self._get(http, "/healthz"))["router"] for _ in range(LOOKS)}
            replicas = (await self._get(http, "/readyz"))["replicas"]
            policies = await self._get(http, "/admin/queue/policy")  # one for all models
        return {
            "routers": sorted(routers),
            "replicas": replicas,
            "policy": next(iter(policies.values())),
        }

    async def problems(self, before: dict[str, Any]) -> list[str]:
        """What is not as it was, and what is left of requests once they had time to go. Puts the
        policy back. Raises httpx.HTTPError."""
        async with httpx.AsyncClient(headers=self._headers, timeout=30) as http:
            url = f"{self._url}/admin/queue/policy"
            (await http.put(url, json={"policy": before["policy"]})).raise_for_status()
            left = await self._left(http)
        after = await self.state()
        changed = []
        if before["routers"] != after["routers"]:
            changed.append(f"routers were {before['routers']}, are {after['routers']}")
        if any(after["replicas"].get(pool, 0) < n for pool, n in before["replicas"].items()):
            changed.append(f"replicas were {before['replicas']}, are {after['replicas']}")
        return changed + ([f"left: {left}"] if left else [])

    async def _left(self, http: httpx.AsyncClient) -> dict[str, tuple[int, int]]:
        """Clients with requests waiting or running."""
        deadline = time.monotonic() + SETTLED_S
        while True:
            rows = (await self._get(http, "/admin/queue/clients"))["clients"]
            left = {
                row["client"]: (row["waiting"], row["running"])
                for row in rows
                if row["waiting"] or row["running"]
            }
            if not left or time.monotonic() > deadline:
                return left
            await asyncio.sleep(0.2)

    async def _get(self, http: httpx.AsyncClient, path: str) -> Any:
        # A connection for each: over one, HAProxy would ask the same router again.
        answer = await http.get(f"{self._url}{path}", headers={"Connection": "close"})
        answer.raise_for_status()
        return answer.json()


async def whole(
    running: Running, seed: int, numbers: range, tell: Callable[[Outcome], None] = lambda _: None
) -> Outcome:
    """All cases of these numbers, and then what is not as before. Raises httpx.HTTPError."""
    before = await running.state()
    outcome = await fuzz(running.target, seed, numbers, tell)
    outcome.finds += [Find(-1, "alive", what, "") for what in await running.problems(before)]
    return outcome
