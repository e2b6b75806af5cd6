"""The VTC paper's synthetic workloads, request for request as its artifact recorded them.

The artifact drew from NumPy's legacy generator, seeded with 42, so its requests can be made again:
`RandomState` is frozen for good, and each pattern here draws from it in the recorded order (which
is why no draw may be moved). Arrival times, lengths and clients equal those of the artifact's
recorded runs. Facts from Ying1123/VTC-artifact (see `paper_suites`); the patterns:

- **uniform**: each client has a fixed spacing and a random phase; with on/off, what the first
  client would send in odd periods is left out;
- **increase**: the first client has a fixed spacing, the second one's rate rises evenly;
- **poisson**: one random stream of arrivals, each given to a client at random by the rates.
  *short-long*: the first client's lengths are a quarter; *short-long-2*: its input and output
  change places;
- **dist-shift**: three uniform phases of a third of the time each.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.random import RandomState

from loadtests.workloads.paper_suites import SUITES, Pattern, Suite
from loadtests.workloads.workload import Request, Workload

SEED = 42
LOWEST_RATE = 0.2
"""Requests per second at which `increase` begins."""
_SHIFT_PHASES = (((0.5, 2.0), 60.0), ((1.0, 1.0), None), ((0.5, 1.5), None))


def paper_suite(name: str, *, duration: float | None = None) -> Workload:
    """Return a suite of the paper by its name in the artifact, e.g. ``overload``.

    duration: seconds of arrivals, if not the suite's own: some recorded runs used another.

    Raises:
        ValueError: there is no such suite.
    """
    if name not in SUITES:
        raise ValueError(f"there is no suite {name!r} in the paper; choose from {sorted(SUITES)}")
    suite = SUITES[name]
    length = suite.duration if duration is None else duration
    requests = _PATTERNS[suite.pattern](RandomState(SEED), suite, length)
    weights = {_name(k): float(weight) for k, weight in enumerate(suite.weights)}
    return Workload(name, tuple(sorted(requests, key=lambda request: request.at)), weights)


def _name(index: int) -> str:
    return f"client{index + 1}"


def _uniform(
    random: RandomState,
    suite: Suite,
    duration: float,
    *,
    rates: tuple[float, ...] | None = None,
    on_off: float | None = None,
    start: float = 0.0,
) -> list[Request]:
    on_off = suite.on_off if on_off is None else on_off
    requests = []
    for index, rate in enumerate(rates or suite.rates):
        count = math.floor(rate * duration)
        inputs = random.randint(*suite.inputs, size=count).tolist()
        outputs = random.randint(*suite.outputs, size=count).tolist()
        # Added up one by one: rounding, too, is as recorded.
        at = start + float(random.rand()) / rate
        for tokens_in, tokens_out in zip(inputs, outputs, strict=True):
            at += 1 / rate
            if index == 0 and on_off is not None and _silent(at - start, on_off):
                continue
            requests.append(Request(at, _name(index), tokens_in, tokens_out))
    return requests


def _silent(at: float, period: float) -> bool:
    """Whether the first client is off: periods begin with on."""
    return math.floor(at / period) % 2 == 1


def _increase(random: RandomState, suite: Suite, duration: float) -> list[Request]:
    steady, last_rate = suite.rates
    count = math.floor(steady * duration)
    slope = (last_rate - LOWEST_RATE) / duration
    rising = math.floor(0.5 * (LOWEST_RATE + last_rate) * duration)
    requests = []
    for index, number in enumerate((count, rising)):
        inputs = random.randint(*suite.inputs, size=number).tolist()
        outputs = random.randint(*suite.outputs, size=number).tolist()
        at = 0.0
        for tokens_in, tokens_out in zip(inputs, outputs, strict=True):
            at += 1 / (steady if index == 0 else LOWEST_RATE + slope * at)
            requests.append(Request(at, _name(index), tokens_in, tokens_out))
    return requests


def _poisson(random: RandomState, suite: Suite, duration: float) -> list[Request]:
    total = sum(suite.rates)
    count = math.floor(total * duration)
    first = random.rand(count) <= suite.rates[0] / total
    inputs = random.randint(*suite.inputs, size=count)
    outputs = random.randint(*suite.outputs, size=count)
    arrivals = np.cumsum(random.gamma(1.0, 1.0 / total, size=count))
    requests = []
    for is_first, at, tokens_in, tokens_out in zip(
        first.tolist(), arrivals.tolist(), inputs.tolist(), outputs.tolist(), strict=True
    ):
        if not is_first:
            requests.append(Request(at, _name(1), tokens_in, tokens_out))
        elif suite.on_off is None or not _silent(at, suite.on_off):
            lengths = _first_clients_lengths(suite.pattern, tokens_in, tokens_out)
            requests.append(Request(at, _name(0), *lengths))
    return requests


def _first_clients_lengths(pattern: Pattern, inputs: int, outputs: int) -> tuple[int, int]:
    if pattern == "poisson-short-long":
        return inputs // 4, outputs // 4
    if pattern == "poisson-short-long-2":
        return outputs, inputs
    return inputs, outputs


def _dist_shift(random: RandomState, suite: Suite, duration: float) -> list[Request]:
    requests: list[Request] = []
    third = duration / 3
    for number, (rates, on_off) in enumerate(_SHIFT_PHASES):
        requests += _uniform(random, suite, third, rates=rates, on_off=on_off, start=number * third)
    return requests


_PATTERNS: dict[Pattern, Callable[[RandomState, Suite, float], list[Request]]] = {
    "uniform": _uniform,
    "increase": _increase,
    "poisson": _poisson,
    "poisson-short-long": _poisson,
    "poisson-short-long-2": _poisson,
    "dist-shift": _dist_shift,
}
