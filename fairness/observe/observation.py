"""What an observer saw of a pool: values, and the JSON that is kept in the store.

Units: `_ms` milliseconds (`at_ms` since 1970, by the store's clock), `_per_s` by the second over
the interval, service as the pool's cost defines it (unweighted), counters service by weight.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ReplicaFacts:
    """What a replica tells of itself, every few seconds.

    slots: sequences that fit in its batch. lookahead: requests it keeps waiting. longest: tokens of
    a prompt and its answer together, at most. kv_tokens: that its cache holds; 0: unknown. kv_use:
    how full that is, 0 to 1. preemptions: since it started.
    """

    slots: int
    lookahead: int
    longest: int
    kv_tokens: int = 0
    kv_use: float = 0.0
    preemptions: int = 0


@dataclass(frozen=True, slots=True)
class ReplicaRow:
    """A live replica. taking: it takes requests (or drains). credits: requests it would take now.
    running: leases it holds. facts: None until it has told them."""

    name: str
    url: str
    taking: bool
    credits: int
    running: int
    facts: ReplicaFacts | None = None


@dataclass(frozen=True, slots=True)
class Rates:
    """What was used, by the second. cached: of the input, what the prefix cache provided."""

    service_per_s: float = 0.0
    input_per_s: float = 0.0
    cached_per_s: float = 0.0
    output_per_s: float = 0.0

    def __add__(self, other: Rates) -> Rates:
        """Add by kind."""
        return Rates(
            self.service_per_s + other.service_per_s,
            self.input_per_s + other.input_per_s,
            self.cached_per_s + other.cached_per_s,
            self.output_per_s + other.output_per_s,
        )

    def __sub__(self, other: Rates) -> Rates:
        """Take a part away, by kind; what rounding leaves below 0 is 0."""
        return Rates(
            max(0.0, self.service_per_s - other.service_per_s),
            max(0.0, self.input_per_s - other.input_per_s),
            max(0.0, self.cached_per_s - other.cached_per_s),
            max(0.0, self.output_per_s - other.output_per_s),
        )


@dataclass(frozen=True, slots=True)
class ClientRow:
    """One client. group: the path of the innermost group it stands in, "" for none. weight: None
    where nobody knows it. waiting: requests; running: leases. service: used in all."""

    client: str
    group: str
    weight: float | None
    counter: float
    waiting: int
    running: int
    service: float
    rates: Rates


@dataclass(frozen=True, slots=True)
class Others:
    """All clients without a row of their own, summed. clients: how many."""

    clients: int = 0
    waiting: int = 0
    running: int = 0
    rates: Rates = Rates()


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One group, by its path. waiting: how many of those in it have something waiting."""

    group: str
    weight: float
    counter: float
    waiting: int
    running: int
    rates: Rates


@dataclass(frozen=True, slots=True)
class Observation:
    """A pool at one moment, and what happened in the interval before it.

    waiting: requests. running: leases. backlogged: clients with something waiting. known: clients
    that the pool has heard of. credits: requests that replicas would take now.
    gap: the largest difference of counters among those that stand together (clients of one group,
    or groups) and were backlogged at this look and the last; None: fewer than two were.
    bound: what the gap cannot exceed (`stated_bound.py`); None while a replica's facts are unknown,
    and under other policies than VTC.
    bound_seen: the same by the requests that did come: as a rule much smaller. None before anything
    was granted.
    paper_bound: the paper's 2U for the same replicas; None where the size of a cache is unknown.
    jain: Jain's index of what those received, by weight, that were backlogged at every look of the
    last `jain_ms`; of several groups the lowest; None: fewer than two were.
    prediction: output tokens that the pool expects of a request (its recent average).
    prediction_error: recent mean of what predictions at grants were off by, in output tokens.
    clients: the rows of those that received or wait for the most; others: the rest.
    """

    at_ms: int
    interval_ms: int
    pool: str
    observer: str
    policy: str
    virtual_time: float
    waiting: int
    running: int
    backlogged: int
    known: int
    credits: int
    oldest_wait_ms: int
    prediction: float
    prediction_error: float
    rates: Rates
    gap: float | None
    bound: float | None
    paper_bound: float | None
    jain: float | None
    jain_ms: int
    replicas: tuple[ReplicaRow, ...] = ()
    clients: tuple[ClientRow, ...] = ()
    others: Others = Others()
    groups: tuple[GroupRow, ...] = ()
    bound_seen: float | None = None

    def to_json(self) -> bytes:
        """Compact JSON; the names of the fields are those here."""
        return orjson.dumps(self)

    @classmethod
    def from_json(cls, text: bytes | str) -> Observation:
        """Read `to_json`; fields of a newer version are passed over.

        Raises ValueError for anything else.
        """
        try:
            fields = orjson.loads(text)
            return known_fields(
                cls,
                fields
                | {
                    "rates": known_fields(Rates, fields["rates"]),
                    "replicas": tuple(map(_replica, fields["replicas"])),
                    "clients": tuple(_with_rates(ClientRow, row) for row in fields["clients"]),
                    "others": _with_rates(Others, fields["others"]),
                    "groups": tuple(_with_rates(GroupRow, row) for row in fields["groups"]),
                },
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is no observation: {error!r}") from error


def known_fields(cls: type[T], fields: dict[str, Any]) -> T:
    """Make a `cls` of those of the fields that it has. Raises TypeError when one is missing."""
    names = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    return cls(**{name: value for name, value in fields.items() if name in names})


def facts_from_json(text: bytes | str) -> ReplicaFacts:
    """Read what a replica told. Raises ValueError for anything else."""
    try:
        return known_fields(ReplicaFacts, orjson.loads(text))
    except (AttributeError, TypeError) as error:
        raise ValueError(f"these are no facts of a replica: {error!r}") from error


def _replica(fields: dict[str, Any]) -> ReplicaRow:
    facts = fields["facts"]
    made = None if facts is None else known_fields(ReplicaFacts, facts)
    return known_fields(ReplicaRow, fields | {"facts": made})


def _with_rates(cls: type[T], fields: dict[str, Any]) -> T:
    return known_fields(cls, fields | {"rates": known_fields(Rates, fields["rates"])})
