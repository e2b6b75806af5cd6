"""The synthetic suites of the VTC paper's artifact: who asks how often, for how much, how long.

Facts of Ying1123/VTC-artifact, commit 192c2e2014c69c8c6c699d7113c3822e4db632e6 (Apache-2.0),
``fair_bench/exp_suite.py``. `loadtests.workloads.paper` makes requests of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Pattern = Literal[
    "uniform", "increase", "poisson", "poisson-short-long", "poisson-short-long-2", "dist-shift"
]


@dataclass(frozen=True, slots=True)
class Suite:
    """One suite.

    rates: requests per second of each client (of `dist-shift`: see there). duration: seconds.
    inputs, outputs: tokens, drawn from ``[low, high)``. on_off: seconds; the first client is silent
    in every second period of this length. weights: of each client, if not 1. shows: what the paper
    uses it for.
    """

    name: str
    pattern: Pattern
    rates: tuple[float, ...]
    duration: float
    inputs: tuple[int, int]
    outputs: tuple[int, int]
    shows: str
    on_off: float | None = None
    weights: tuple[float, ...] = ()


def _fixed(
    name: str,
    rates: tuple[float, ...],
    shows: str,
    *,
    duration: float = 600,
    tokens: int = 256,
    on_off: float | None = None,
    pattern: Pattern = "uniform",
    weights: tuple[float, ...] = (),
) -> Suite:
    """A suite in which all prompts and all answers have one length."""
    lengths = (tokens, tokens + 1)
    return Suite(name, pattern, rates, duration, lengths, lengths, shows, on_off, weights)


_ALL = (
    _fixed("ablation_lshare", (0.2, 0.8), "two clients at fixed rates", duration=300),
    _fixed("overload", (1.5, 3), "two clients that want too much (fig. 3)", duration=360),
    _fixed(
        "overload-multi",
        (0.4, 0.4, 0.4, 0.6, 0.6, 0.6, 0.6, 0.6),
        "eight clients that want too much (fig. 19b)",
        duration=360,
    ),
    _fixed(
        "overload-weighted",
        (0.8, 0.8, 1.2, 1.6),
        "weights 1 to 4 (fig. 16), rates nearly in proportion to them",
        duration=360,
        weights=(1, 2, 3, 4),
    ),
    _fixed("overload-s4", (4, 8), "a pool of 65,000 tokens (section 5.4)"),
    _fixed("overload-s4-short", (8, 16), "not in the final paper", tokens=128),
    _fixed("overload-s4-long", (2, 4), "a pool of 65,000 tokens, longer (fig. 15)", tokens=512),
    _fixed("overload-s4-35000-128", (6, 12), "not in the final paper", tokens=128),
    _fixed("overload-s4-35000-256", (3, 6), "a pool of 35,000 tokens (fig. 15)"),
    _fixed("overload-s4-35000-512", (1.5, 3), "a pool of 35,000 tokens (fig. 15)", tokens=512),
    _fixed("overload-s4-35000-768", (1, 2), "a pool of 35,000 tokens (fig. 15)", tokens=768),
    _fixed("proportional", (0.25, 0.5, 1.5), "who asks for less than its share gets it (fig. 4)"),
    _fixed("increase", (0.5, 2), "a client asks ever more: isolation (fig. 9)", pattern="increase"),
    _fixed("on_off_less", (0.5, 2), "on and off, under its share (fig. 5)", on_off=60),
    _fixed("on_off_overload", (2, 3), "on and off, over its share (fig. 6)", on_off=60),
    Suite(
        "poisson_on_off_overload",
        "poisson",
        (0.5, 2),
        600,
        (16, 512),
        (16, 512),
        "random arrivals and lengths, one client on and off (not in the final paper)",
        on_off=60,
    ),
    _fixed(
        "poisson_short_long",
        (8, 1.5),
        "many short requests against few long ones (fig. 7)",
        pattern="poisson-short-long",
    ),
    Suite(
        "poisson_short_long_2",
        "poisson-short-long-2",
        (8, 1.5),
        600,
        (32, 33),
        (512, 513),
        "long prompts against long answers (fig. 8)",
    ),
    _fixed(
        "dist_shift",
        (),
        "rates change twice: on and off, then equal, then unequal (fig. 10)",
        duration=900,
        pattern="dist-shift",
    ),
)

SUITES = {suite.name: suite for suite in _ALL}
