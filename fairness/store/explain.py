"""What the queue tells of a request that its router keeps the story of: where it stood, why it went
to that replica, how it was charged in the end. For people; the queue itself needs none of it.
"""

from __future__ import annotations

from dataclasses import dataclass

AHEAD_NAMED = 5  # as in lua/explain.lua


@dataclass(frozen=True, slots=True)
class Place:
    """Where a client or a group (its name ends in a slash) stands among those it stands with.

    counter: service it has received, by weight. ahead: how many have less, ties by name. first: the
    first of those, with their counters. Of a priority class, instead of the counter: what it is
    owed; ahead: how many classes that wait go before it.
    """

    node: str
    counter: float
    ahead: int
    first: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a waiting request stands. before_it: requests of its own client, or under `fcfs` and
    `shadow` of all clients, that go before it. levels: its outermost group or the client first;
    none under `fcfs`, under `shadow` as VTC has them. of_client: always of its own client.
    """

    policy: str
    before_it: int
    levels: tuple[Place, ...]
    of_client: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """Why a grant was what it was.

    charged: service charged in advance, of it predicted output `tokens`. credits: grants that the
    replica took before this one (0: not known any more); other: who had the next most
    ("": nobody had any), and other_credits how many. turn: under `shadow`, the client whose turn it
    was under VTC; "" not known.
    """

    charged: float
    tokens: float
    credits: int
    other_credits: int
    other: str
    turn: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """A lease that is over. how: settled, lost (its replica fell silent), taken_back (unused).

    Tokens are those it is charged for: service. charged: what stood charged just before.
    """

    how: str
    input: int
    cached: int
    output: int
    charged: float
    service: float
    lease: str
