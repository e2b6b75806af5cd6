"""How far apart the service of two clients can get: the bound Fairlane states.

The theory in short (docs/theory.md has all of it). The queue's **counter** of a client differs
from the service it has truly received, and both ways at once:

- *uncharged* (``Q``): service that its leases still have coming and its counter doesn't show:
  output not made yet, charges not reported yet, prompts estimated too low;
- *unearned* (``E``): what its counter shows and it hasn't received: the prompt of a request that
  isn't in a batch yet, output charged in advance, prompts estimated too high.

Every grant goes to the smallest counter of those who wait, and whoever begins to wait is lifted to
it at least. So what a client has truly received is never more than Q above the smallest counter at
its last grant, and nobody who waits is more than E below it. Over any interval in which clients i
and j both wait, with weights w_i and w_j, and w the smallest weight in the pool::

    |W_i / w_i - W_j / w_j|  <=  Q / w_i + Q / w_j + 2 * E / w + R * burst

(burst: how far ahead of those who wait a client may be that comes back from idleness.) With exact
counters, no burst, nothing charged in advance and every granted request in its batch at once,
``E = 0`` and ``Q = U``: the paper's ``2U`` (VTC, OSDI 2024, theorem 4.4); with weights its U is
divided by each. What Q and E are in a pool of R replicas, each holding at most ``window`` grants::

    Q = R * min(window * part, U + ahead * part + lag) + (whole - part)
    E = R * (window * w_q * reserved + ahead * w_p * L + (window - ahead) * w_p * overestimate)

    whole = w_p * L + w_q * O                  one request in full
    part  = w_p * underestimate + w_q * beyond    what of it its grant may leave uncharged
    U     = w_q * M + max(0, w_p - w_q) * min(window * L, M)   of one batch: w_q * M as a rule

Why this is right: at a grant each of the client's other leases lacks at most ``part``, and there
are at most ``window`` a replica (the first argument of min). Or else: those in a batch fit in its
memory until they end, those not in it are at most ``ahead``, those that have ended and aren't
settled had no more than ``lag`` reported too late. ``whole - part``: the newest grant was made
before its own estimate was charged.

Note what is absent: while ``window * part`` is the smaller, the interval between charges. The bound
takes all that is granted for unknown already; lag makes typical gaps larger, not the largest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from fairness.cost import ServiceCost


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """What a pool can be committed to at one moment. Tokens and requests, of one replica each.

    replicas: that serve, and dead ones until they are swept.
    longest_input, longest_output: of one request, all of its sequences (L and O).
    window: grants a replica holds at most: slots + lookahead, if it is filled in one go.
    ahead: of these, outside the batch (on their way, waiting, preempted) while memory is full.
        None: all of the window. The lookahead only where the replica never takes more than that
        beyond what fits its memory.
    batch_tokens: M, the input and output tokens of the requests in a batch when each has made its
        last. None: unknown. For an engine that doesn't reserve memory see `committed_tokens`.
    underestimate, overestimate: input tokens that an estimate may be off by. None: all of L.
    reserved: output tokens charged at most at a grant (share * prediction).
    beyond: output tokens that a request may make beyond those charged at its grant. None: O.
    lag_service: service a replica can give between making a token and the queue's knowing.
        None: unknown.
    burst: service by weight that who comes back is ahead of those who wait.

    Raises:
        ValueError: a limit is negative or not finite, or there is no replica.
    """

    replicas: int
    longest_input: int
    longest_output: int
    window: int
    ahead: int | None = None
    batch_tokens: float | None = None
    underestimate: float | None = None
    overestimate: float | None = None
    reserved: float = 0.0
    beyond: float | None = None
    lag_service: float | None = None
    burst: float = 0.0
    cost: ServiceCost = field(default_factory=ServiceCost)

    def __post_init__(self) -> None:
        numbers = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name != "cost" and getattr(self, name) is not None
        }
        wrong = [name for name, x in numbers.items() if not (math.isfinite(x) and x >= 0)]
        if wrong or self.replicas < 1:
            raise ValueError(
                "limits must be finite and not negative, and a pool has at least one replica; "
                f"look at {', '.join(wrong) or 'replicas'}"
            )


def batch_commitment(limits: PoolLimits) -> float:
    """Return U of one batch: the most service that what fits in its memory can be worth.

    Infinite when `batch_tokens` is unknown. Where input is dearer than output, it also counts what
    prompts cost more than the output that could have had their place.
    """
    if limits.batch_tokens is None:
        return math.inf
    cost, memory = limits.cost, limits.batch_tokens
    prompts = min(limits.longest_input * limits.window, memory)
    dearer = max(0.0, cost.input_weight - cost.output_weight)
    return cost.output_weight * memory + dearer * prompts


def committed_tokens(memory: float, slots: int, longest_output: int) -> float:
    """Return M for an engine that admits without reserving memory for the output to come.

    Then requests that end make room for others to grow in, and the sum of their final sizes may
    exceed the memory. While each running request makes a token a step, k of them that all make d
    more tokens must fit in it at once, so the k-th longest makes at most ``memory / k`` more.
    What is preempted waits again, and counts as `ahead` instead.
    """
    to_come = sum(min(longest_output, memory / k) for k in range(1, slots + 1))
    return memory + to_come


def uncharged(limits: PoolLimits) -> float:
    """Return Q: the most service one client can have coming that its counter doesn't show."""
    part = _part(limits)
    ahead = limits.window if limits.ahead is None else limits.ahead
    by_count = limits.window * part
    lag = by_count if limits.lag_service is None else limits.lag_service
    by_memory = batch_commitment(limits) + ahead * part + lag
    newest = _whole(limits) - part if by_count <= by_memory or ahead else 0.0
    return limits.replicas * min(by_count, by_memory) + newest


def unearned(limits: PoolLimits) -> float:
    """Return E: the most service a client's counter can show that it has not received."""
    ahead = limits.window if limits.ahead is None else min(limits.ahead, limits.window)
    over = limits.longest_input if limits.overestimate is None else limits.overestimate
    cost = limits.cost
    return limits.replicas * (
        cost.of(0, limits.window * limits.reserved)
        + cost.of(ahead * limits.longest_input, 0)
        + cost.of((limits.window - ahead) * over, 0)
    )


def lost_with_a_replica(limits: PoolLimits) -> float:
    """Return the service that a replica may have given unreported when it dies: never charged."""
    most = limits.window * _whole(limits)
    return most if limits.lag_service is None else min(most, limits.lag_service)


def service_bound(
    limits: PoolLimits,
    weight: float = 1.0,
    other: float = 1.0,
    *,
    lightest: float | None = None,
    deaths: int = 0,
) -> float:
    """Return the bound on ``|W_i / w_i - W_j / w_j|`` over any interval in which both wait.

    Args:
        weight, other: of the two clients.
        lightest: the smallest weight in the pool; by default that of the two.
        deaths: replicas that died in the interval or shortly before it.

    Raises:
        ValueError: a weight is not above 0.
    """
    least = min(weight, other) if lightest is None else min(weight, other, lightest)
    if not least > 0:
        raise ValueError(f"weights must be above 0, not {weight}, {other} and {lightest}")
    known = uncharged(limits) * (1 / weight + 1 / other) + 2 * unearned(limits) / least
    known += limits.replicas * limits.burst
    return known + (deaths * lost_with_a_replica(limits) / least if deaths else 0.0)


def excess_bound(
    limits: PoolLimits,
    weight: float = 1.0,
    other: float = 1.0,
    *,
    lightest: float | None = None,
) -> float:
    """Return how much more than a waiting client anyone may receive in any interval.

    ``W_k / w_k - W_i / w_i`` where i (`weight`) waits throughout and k (`other`) does as it likes:
    it may first live on the leases it has, then begin to wait and be lifted.
    """
    leases = (uncharged(limits) + unearned(limits)) / other
    return service_bound(limits, weight, other, lightest=lightest) + leases


def paper_bound(limits: PoolLimits, weight: float = 1.0, other: float = 1.0) -> float:
    """Return theorem 4.4's ``2U``, ``U = max(w_p * L, w_q * R * M)``; by weights, ``U / w`` each.

    Infinite when `batch_tokens` is unknown.
    """
    if limits.batch_tokens is None:
        return math.inf
    cost, memory = limits.cost, limits.replicas * limits.batch_tokens
    u = max(cost.of(limits.longest_input, 0), cost.of(0, memory))
    return u / weight + u / other


def _whole(limits: PoolLimits) -> float:
    return limits.cost.of(limits.longest_input, limits.longest_output)


def _part(limits: PoolLimits) -> float:
    under = limits.longest_input if limits.underestimate is None else limits.underestimate
    beyond = limits.longest_output if limits.beyond is None else limits.beyond
    return limits.cost.of(min(under, limits.longest_input), min(beyond, limits.longest_output))
