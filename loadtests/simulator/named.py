"""The registry of systems by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fairness.policy import FCFS, LCF, VTC, Policy
from fairness.prediction import Prediction
from loadtests.simulator.accounts import Accounts
from loadtests.simulator.clusters import BoundAtArrival, Central, Gated, RoundRobin, least_loaded
from loadtests.simulator.fairlane import fairlane
from loadtests.simulator.gates import RequestsPerMinute
from loadtests.simulator.lines import DeficitRoundRobin, FairLine
from loadtests.simulator.peers import (
    FairnessPolicy,
    HeldWhileSaturated,
    LeastAttainedService,
    TakeTurns,
    VtcBasic,
)
from loadtests.simulator.prices import (
    AsMade,
    FromHistory,
    InAdvance,
    Oracle,
    Price,
    Profiled,
    within_half,
)
from loadtests.simulator.settings import EXACT, FairlaneSettings
from loadtests.simulator.systems import Front, Site, System

MakePrice = Callable[[Site], Price]

DRR_QUANTUM = 256.0
AVERAGE = Prediction("moving_average")  # the paper's
HALF = Prediction("moving_average", 0.5)
POOL_AVERAGE = Prediction("pool_average")
BURST = FairlaneSettings().burst


def fair_line(
    site: Site,
    policy: Policy,
    price: MakePrice | None = None,
    *,
    to_the_last: bool = True,
    burst: float = 0.0,
) -> FairLine:
    """A line with its own counters. burst: a server, as the product's."""
    cost = price(site) if price else AsMade()
    accounts = Accounts(
        cost, lifts=policy.lifts, to_the_last=to_the_last, burst=burst * site.replicas
    )
    return FairLine(policy, accounts)


def central(
    policy: Policy,
    price: MakePrice | None = None,
    *,
    to_the_last: bool = True,
    burst: float = 0.0,
) -> System:
    """One line, exact counters."""
    return lambda site: Central(
        site, fair_line(site, policy, price, to_the_last=to_the_last, burst=burst)
    )


def fcfs_least_loaded(site: Site) -> Front:
    """What a plain load balancer before plain engines does."""
    lines = [fair_line(site, FCFS()) for _ in range(site.replicas)]
    return BoundAtArrival(site, lines, least_loaded)


def rpm(limit: int) -> System:
    """The same behind a rate limit."""
    return lambda site: Gated(site, RequestsPerMinute(limit), fcfs_least_loaded(site))


def local_vtc(balanced: bool) -> System:
    """VTC in each server, which knows nothing of the others."""

    def build(site: Site) -> Front:
        lines = [fair_line(site, VTC()) for _ in range(site.replicas)]
        return BoundAtArrival(site, lines, least_loaded if balanced else RoundRobin())

    return build


def global_at_arrival(site: Site) -> Front:
    """VTC in each server by common, exact counters; bound to the least loaded at arrival."""
    accounts = Accounts(AsMade())
    lines = [FairLine(VTC(), accounts, shared=True) for _ in range(site.replicas)]
    return BoundAtArrival(site, lines, least_loaded)


def aibrix(site: Site) -> Front:
    """AIBrix's `vtc-basic`."""
    lines = [fair_line(site, FCFS()) for _ in range(site.replicas)]
    return BoundAtArrival(site, lines, VtcBasic(site.random))


def llm_d(policy: Callable[[], FairnessPolicy]) -> System:
    """llm-d's flow control."""

    def build(site: Site) -> Front:
        lines = [fair_line(site, FCFS()) for _ in range(site.replicas)]
        return HeldWhileSaturated(site, lines, policy())

    return build


def _predicted(prediction: Prediction) -> MakePrice:
    return lambda site: InAdvance(FromHistory(prediction))


SYSTEMS: Mapping[str, System] = {
    "fcfs": fcfs_least_loaded,
    "rpm5": rpm(5),
    "rpm10": rpm(10),
    "rpm15": rpm(15),
    "rpm20": rpm(20),
    "rpm30": rpm(30),
    "lcf": central(LCF()),
    "vtc": central(VTC()),
    "vtc-predicted": central(VTC(), _predicted(AVERAGE)),
    "vtc-half-predicted": central(VTC(), _predicted(HALF)),
    "vtc-pool-predicted": central(VTC(), _predicted(POOL_AVERAGE)),
    "vtc-burst": central(VTC(), burst=BURST),
    "vtc-pool-predicted-burst": central(VTC(), _predicted(POOL_AVERAGE), burst=BURST),
    "vtc-noisy-oracle": central(VTC(), lambda site: InAdvance(within_half(site.random))),
    "vtc-oracle": central(VTC(), lambda site: InAdvance(Oracle())),
    "vtc-profiled": central(VTC(), lambda site: Profiled()),
    "drr": lambda site: Central(site, DeficitRoundRobin(AsMade(), DRR_QUANTUM)),
    "local-vtc-round-robin": local_vtc(balanced=False),
    "local-vtc-least-loaded": local_vtc(balanced=True),
    "global-counters-at-arrival": global_at_arrival,
    "aibrix-vtc-basic": aibrix,
    "llm-d-round-robin": llm_d(TakeTurns),
    "llm-d-las": llm_d(LeastAttainedService),
    "fairlane": fairlane(FairlaneSettings()),
    "fairlane-exact": fairlane(EXACT),
    "fairlane-fcfs": fairlane(FairlaneSettings(policy="fcfs")),
    "fairlane-charges-1s": fairlane(FairlaneSettings(charge_interval_s=1.0)),
    "fairlane-charges-5s": fairlane(FairlaneSettings(charge_interval_s=5.0)),
    "fairlane-no-burst": fairlane(FairlaneSettings(burst=0.0)),
    "fairlane-unpredicted": fairlane(FairlaneSettings(prediction=Prediction("none"))),
    "fairlane-predicted": fairlane(FairlaneSettings(prediction=AVERAGE)),
    "fairlane-half-predicted": fairlane(FairlaneSettings(prediction=HALF)),
}
"""VTC and its kin have one central line, in the batch of one server as in many."""


def named(name: str) -> System:
    """Return a system by its name. Raises ValueError, naming those there are."""
    try:
        return SYSTEMS[name]
    except KeyError:
        raise ValueError(f"unknown system {name!r}; choose from {sorted(SYSTEMS)}") from None


def recorded(policy: str, *, revised: bool = False) -> System:
    """The server that was recorded for the VTC paper, with its quirks of accounting.

    policy: "fcfs", "lcf", "vtc" or "oracle". The first output token is free, and a client that
    comes while nobody waits is not lifted. revised: as of 2024, when a step in which a request ends
    costs the whole batch a token more.

    Raises:
        ValueError: another policy.
    """
    quirky = AsMade(free_tokens=1, surcharge=2.0 if revised else 0.0)
    systems: dict[str, System] = {
        "fcfs": central(FCFS()),
        "lcf": central(LCF(), lambda site: quirky),
        "vtc": central(VTC(), lambda site: quirky, to_the_last=False),
        "oracle": central(VTC(), lambda site: InAdvance(Oracle()), to_the_last=False),
    }
    if policy not in systems:
        raise ValueError(f"unknown policy {policy!r}; choose from {sorted(systems)}")
    return systems[policy]
