"""What a fault must not leave behind: requests, leases and slots that nobody will ever free.

Two witnesses, who may disagree: the application's own word (``GET /admin/queue/clients``) and the
store's keys. Redis drops a set, hash or sorted set that is empty, so a key that exists holds
something.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Of the keys of a pool (fairness/store/lua/state.lua): those of requests, leases and slots.
NAMED = frozenset({"requests", "arrivals", "unseen"})
PREFIXED = ("line:", "leases:", "routed:", "void:")


def leaked_keys(keys: Iterable[str], prefix: str) -> list[str]:
    """Return those of a pool's keys that speak of a request or a lease, without the prefix.

    prefix: ``SCHEMA:{POOL}:``.
    """
    own = (key.removeprefix(prefix) for key in keys if key.startswith(prefix))
    return sorted(key for key in own if key in NAMED or key.startswith(PREFIXED))


def busy_clients(rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[int, int]]:
    """Return (waiting, running) of each client that has any, from ``/admin/queue/clients``."""
    return {
        str(row["client"]): (int(row["waiting"]), int(row["running"]))
        for row in rows
        if row["waiting"] or row["running"]
    }


def missing_slots(credits: Mapping[str, int], offered: int) -> int:
    """Return how many slots of an idle pool are not on offer.

    credits: of each live replica, as the store has them. offered: by an idle replica; its
    lookahead, from which it is filled by doubling.
    """
    return sum(max(0, offered - free) for free in credits.values())


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What is left of a load that has ended. Nothing, if all is well."""

    clients: dict[str, tuple[int, int]] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    slots: int = 0
    unknown: str | None = None

    def __bool__(self) -> bool:
        return bool(self.clients or self.keys or self.slots or self.unknown)

    @property
    def count(self) -> int:
        """How many: the worst witness's number."""
        leases = sum(waiting + running for waiting, running in self.clients.values())
        return max(leases, len(self.keys), self.slots, int(self.unknown is not None))

    def __str__(self) -> str:
        if not self:
            return "nothing"
        said = [f"{name}: {w} waiting, {r} running" for name, (w, r) in self.clients.items()]
        if self.keys:
            more = f" and {len(self.keys) - 4} more" if len(self.keys) > 4 else ""
            said.append(f"keys {', '.join(self.keys[:4])}{more}")
        if self.slots:
            said.append(f"{self.slots} slots not on offer")
        if self.unknown:
            said.append(self.unknown)
        return "; ".join(said)
