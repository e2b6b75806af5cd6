"""The systems that experiments compare, as people call them."""

from __future__ import annotations

EXACT = "vtc"
"""As the paper has it: no predictions, no burst."""
PREDICTED = "vtc-pool-predicted"
IDEAL = "vtc-pool-predicted-burst"
"""The product's rules on one exact queue: what it would be if messages took no time."""
BY_PROFILE = "vtc-profiled"
DEFAULT = "fairlane"
"""The product with its default settings, as `loadtests.simulator` has it."""
CONTROL = "fcfs"

TITLES = {
    "fcfs": "FCFS, least loaded",
    "lcf": "LCF",
    "vtc": "VTC, one queue",
    "vtc-predicted": "VTC, predicted lengths",
    "vtc-pool-predicted": "VTC, the pool's average",
    "vtc-burst": "VTC, burst",
    "vtc-pool-predicted-burst": "VTC, the pool's average, burst",
    "vtc-half-predicted": "VTC, half the prediction",
    "vtc-noisy-oracle": "VTC, lengths ±50%",
    "vtc-oracle": "VTC, oracle lengths",
    "vtc-profiled": "VTC, profiled cost",
    "drr": "deficit round robin",
    "rpm5": "at most 5 a minute",
    "rpm10": "at most 10 a minute",
    "rpm15": "at most 15 a minute",
    "rpm20": "at most 20 a minute",
    "rpm30": "at most 30 a minute",
    "local-vtc-round-robin": "VTC in each server, round robin",
    "local-vtc-least-loaded": "VTC in each server, least loaded",
    "global-counters-at-arrival": "common counters, bound at arrival",
    "aibrix-vtc-basic": "AIBrix vtc-basic",
    "llm-d-round-robin": "llm-d, round robin",
    "llm-d-las": "llm-d, least attained service",
    "fairlane": "Fairlane",
    "fairlane-exact": "Fairlane, exact counters",
    "fairlane-charges-1s": "Fairlane, charges every second",
    "fairlane-charges-5s": "Fairlane, charges every 5 s",
    "fairlane-no-burst": "Fairlane, no burst",
    "fairlane-unpredicted": "Fairlane, no predictions",
    "fairlane-predicted": "Fairlane, predicted lengths",
    "fairlane-half-predicted": "Fairlane, half the prediction",
    "fairlane-fcfs": "Fairlane, policy FCFS",
}


def title(system: str) -> str:
    """Return what people call a system."""
    return TITLES.get(system, system)


def refuses(system: str) -> bool:
    """Whether it turns requests away, so that its numbers are of fewer requests."""
    return system.startswith("rpm")
