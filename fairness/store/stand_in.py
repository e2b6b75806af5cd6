"""What a router and a replica say to each other while the store is away.

Then each router runs the queue of its own requests in memory (`MemoryPool`) over its share of each
replica's room, and asks each replica a few times a second, at the replica's own port: how much
room have you for me, and what have these leases used? The leases are as real as the store's; the
replica reports them to the store when it is back.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from fairness.store.contract import Usage

PATH = "/fairlane/stand-in"


class LeaseState(enum.IntEnum):
    """What a replica knows of a lease."""

    UNKNOWN = 0
    OPEN = 1
    OVER = 2


@dataclass(frozen=True, slots=True)
class Question:
    """From `router`, about its `leases`."""

    router: str
    leases: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What is sent."""
        return {"router": self.router, "leases": list(self.leases)}

    @classmethod
    def from_json(cls, content: Any) -> Question:
        """Raises KeyError, TypeError for what is not a question."""
        return cls(str(content["router"]), tuple(map(str, content["leases"])))


@dataclass(frozen=True, slots=True)
class Answer:
    """room: requests the replica would take from this router now. longest: prompt, in tokens."""

    room: int
    longest: int
    leases: dict[str, tuple[LeaseState, Usage]]

    def to_json(self) -> dict[str, Any]:
        """What is sent."""
        leases = {
            name: [state, usage.input, usage.cached, usage.output]
            for name, (state, usage) in self.leases.items()
        }
        return {"room": self.room, "longest": self.longest, "leases": leases}

    @classmethod
    def from_json(cls, content: Any) -> Answer:
        """Raises ValueError for what is not an answer."""
        try:
            leases = {
                name: (LeaseState(state), Usage(*map(int, tokens)))
                for name, (state, *tokens) in content["leases"].items()
            }
            return cls(int(content["room"]), int(content["longest"]), leases)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"not an answer to a stand-in queue: {error!r}") from error
