"""Workloads of our own: what shared clusters see and the paper's suites do not have.

Each is a function of ``replicas`` (rates grow with them, clients stay the same), ``seed`` and
``seconds`` of arrivals. At one replica a load of 1 is about what the paper's server can do: 1.7
requests a second of 256 + 256 tokens, 875 tokens/s (A10G, a 7B model). Prompts and answers fit its
limits: 2,048 tokens of input, 3,072 in all.
"""

from __future__ import annotations

from dataclasses import replace

from loadtests.workloads.arrivals import (
    Lengths,
    merged,
    on_and_off,
    poisson,
    requests,
    stream,
)
from loadtests.workloads.part import through_routers
from loadtests.workloads.workload import Request, Workload

SECONDS = 600.0
CHAT_IN, CHAT_OUT = Lengths(128, 0.9), Lengths(192, 0.7)
EQUAL = Lengths(256)
TENANTS = 100
CONNECTIONS = 1_000


def _flood(
    client: str,
    rate: float,
    seed: int,
    seconds: float,
    *,
    start: float = 0.0,
    inputs: Lengths = EQUAL,
    outputs: Lengths = EQUAL,
) -> list[Request]:
    """What one client sends at random times: requests of 256 + 256 tokens unless told otherwise."""
    random = stream(seed, client)
    return requests(random, client, poisson(random, rate, start, seconds), inputs, outputs)


def zipf_tenants(*, replicas: int = 1, seed: int = 0, seconds: float = SECONDS) -> Workload:
    """A hundred tenants, the k-th at 1/k of the first one's rate; 1.5 times the capacity."""
    shares = [1 / (rank + 1) for rank in range(TENANTS)]
    per_share = 1.5 * 1.9 * replicas / sum(shares)
    parts = [
        _flood(
            f"tenant{rank:03}",
            per_share * share,
            seed,
            seconds,
            inputs=CHAT_IN,
            outputs=CHAT_OUT,
        )
        for rank, share in enumerate(shares)
    ]
    return merged("zipf_tenants", *parts)


def weighted(*, replicas: int = 1, seed: int = 0, seconds: float = SECONDS) -> Workload:
    """Four clients of weights 1 to 4 that want too much, all at one rate.

    In the paper's suite the rates follow the weights, so that equal treatment looks the same.
    """
    weights = {f"weight{number}": float(number) for number in (1, 2, 3, 4)}
    parts = [_flood(name, 1.0 * replicas, seed, seconds) for name in weights]
    return merged("weighted", *parts, weights=weights)


def noisy_neighbour(*, replicas: int = 1, seed: int = 0, seconds: float = SECONDS) -> Workload:
    """A client that asks now and then, a tenth of the capacity, beside one that floods."""
    return merged(
        "noisy_neighbour",
        _flood("polite", 0.17 * replicas, seed, seconds),
        _flood("flooder", 5.0 * replicas, seed, seconds),
    )


def on_off(*, replicas: int = 1, seed: int = 0, seconds: float = SECONDS) -> Workload:
    """Two clients that always want too much; two in bursts, of 60 s and of 30 s in turn with it."""
    parts = [_flood(name, 1.5 * replicas, seed, seconds) for name in ("steady1", "steady2")]
    for name, period, begins_on in (("bursts60", 60.0, True), ("bursts30", 30.0, False)):
        random = stream(seed, name)
        times = on_and_off(
            poisson(random, 2.0 * replicas, 0.0, seconds), period, begins_on=begins_on
        )
        parts.append(requests(random, name, times, EQUAL, EQUAL))
    return merged("on_off", *parts)


def long_prompts_and_chats(
    *, replicas: int = 1, seed: int = 0, seconds: float = SECONDS
) -> Workload:
    """Documents of 1,800 tokens with short answers beside chats; both want too much."""
    return merged(
        "long_prompts_and_chats",
        _flood(
            "documents",
            1.2 * replicas,
            seed,
            seconds,
            inputs=Lengths(1800, 0.1, longest=2000),
            outputs=Lengths(64, 0.3),
        ),
        _flood("chats", 3.0 * replicas, seed, seconds, inputs=Lengths(64, 0.5), outputs=CHAT_OUT),
    )


def aborters(*, replicas: int = 1, seed: int = 0, seconds: float = SECONDS) -> Workload:
    """One client listens; one always hangs up after 16 tokens; one half of the time, anywhere.

    Who hangs up must be charged for what was made, and no more.
    """
    long_answers = Lengths(512)
    listener = _flood("listener", 1.2 * replicas, seed, seconds, outputs=long_answers)
    hasty = _flood("hasty", 4.0 * replicas, seed, seconds, outputs=long_answers)
    fickle = _flood("fickle", 1.5 * replicas, seed, seconds, outputs=long_answers)
    random = stream(seed, "fickle, when it hangs up")
    after = random.integers(1, 1024, size=len(fickle)).tolist()
    return merged(
        "aborters",
        listener,
        (replace(request, abort_after=16) for request in hasty),
        (
            replace(request, abort_after=tokens if tokens < request.output_tokens else None)
            for request, tokens in zip(fickle, after, strict=True)
        ),
    )


def many_keys(
    *, replicas: int = 1, seed: int = 0, seconds: float = SECONDS, keys: int = 8
) -> Workload:
    """Three clients that want the same; one has eight API keys and must not get eight shares."""
    parts = [_flood(name, 1.5 * replicas, seed, seconds) for name in ("one_key1", "one_key2")]
    hoarder = _flood("hoarder", 1.5 * replicas, seed, seconds)
    parts.append([replace(request, key=k % keys) for k, request in enumerate(hoarder)])
    return merged("many_keys", *parts)


def shared_prefixes(
    *, replicas: int = 1, seed: int = 0, seconds: float = SECONDS, prefix_tokens: int = 1024
) -> Workload:
    """Six tenants, each with two long system prompts and short questions; one sends half of all.

    The same 1,024 tokens open many prompts, so a server that keeps them computes little else.
    """
    parts = []
    for number in range(6):
        client = f"tenant{number}"
        rate = (4.0 if number == 0 else 0.8) * replicas
        asked = _flood(
            client, rate, seed, seconds, inputs=Lengths(48, 0.5, longest=256), outputs=Lengths(64)
        )
        parts.append(
            [
                replace(
                    request,
                    input_tokens=request.input_tokens + prefix_tokens,
                    prefix=f"{client}/{k % 2}",
                    prefix_tokens=prefix_tokens,
                )
                for k, request in enumerate(asked)
            ]
        )
    return merged("shared_prefixes", *parts)


def some_routers(
    *, replicas: int = 1, seed: int = 0, seconds: float = SECONDS, routers: int = 2
) -> Workload:
    """Three clients that want too much: one reaches the first router, one the last, one all.

    Fair shares must not depend on which router one reaches.
    """
    names = ("first_only", "last_only", "anywhere")
    workload = merged(
        "some_routers", *(_flood(name, 1.2 * replicas, seed, seconds) for name in names)
    )
    return through_routers(
        workload,
        {"first_only": [0], "last_only": [routers - 1], "anywhere": list(range(routers))},
    )


def newcomer(
    *, replicas: int = 1, seed: int = 0, seconds: float = SECONDS, joins: float | None = None
) -> Workload:
    """Two clients for long; a third joins after three quarters and must get a third, no more.

    joins: seconds. A counter that starts at nothing would let it starve the others for as long as
    they had been there; ``seconds=4800`` is an hour of it.
    """
    when = 0.75 * seconds if joins is None else joins
    parts = [_flood(name, 1.2 * replicas, seed, seconds) for name in ("old1", "old2")]
    return merged("newcomer", *parts, _flood("newcomer", 2.0 * replicas, seed, seconds, start=when))


def thousand_connections(*, replicas: int = 1, seed: int = 0, seconds: float = SECONDS) -> Workload:
    """A client opens 1,000 connections per replica within a second; another just goes on asking."""
    random = stream(seed, "crowd")
    start = min(30.0, seconds / 4)
    times = sorted(random.uniform(start, start + 1.0, size=CONNECTIONS * replicas).tolist())
    crowd = requests(random, "crowd", times, Lengths(64), Lengths(64))
    return merged("thousand_connections", crowd, _flood("polite", 0.3 * replicas, seed, seconds))
