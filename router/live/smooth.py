"""Rates over several observations, since within one interval they jump about. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from fairness.observe.observation import Observation, Rates


def smoothed(seen: Sequence[Observation]) -> Observation:
    """The last of them, with the means of all for rates; of a client or a group without a row the
    rate was nothing. Raises IndexError for none. O(rows of all)."""
    last = seen[-1]
    length = sum(one.interval_ms for one in seen)
    of_clients = ((row.client, row.rates, one.interval_ms) for one in seen for row in one.clients)
    of_groups = ((row.group, row.rates, one.interval_ms) for one in seen for row in one.groups)
    clients, groups = _means(of_clients, length), _means(of_groups, length)
    total = _means((("", one.rates, one.interval_ms) for one in seen), length)[""]
    return replace(
        last,
        rates=total,
        clients=tuple(replace(row, rates=clients[row.client]) for row in last.clients),
        groups=tuple(replace(row, rates=groups[row.group]) for row in last.groups),
    )


def _means(rows: Iterable[tuple[str, Rates, int]], length: int) -> dict[str, Rates]:
    sums: dict[str, Rates] = {}
    for name, rates, interval in rows:
        part = interval / length
        sums[name] = sums.get(name, Rates()) + Rates(
            rates.service_per_s * part,
            rates.input_per_s * part,
            rates.cached_per_s * part,
            rates.output_per_s * part,
        )
    return sums
