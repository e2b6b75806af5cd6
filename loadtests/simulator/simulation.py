"""One run: a workload, a system, so many servers."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from loadtests.outcome import Run
from loadtests.simulator.clock import Clock
from loadtests.simulator.hardware import A10G, Server
from loadtests.simulator.job import Job
from loadtests.simulator.named import named
from loadtests.simulator.systems import Site, System
from loadtests.workloads.workload import Request, Workload


def simulate(
    workload: Workload,
    system: str | System,
    replicas: int = 1,
    *,
    seed: int = 0,
    server: Server = A10G,
    name: str | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Run:
    """Serve a workload in simulated time, to its last request; the same twice for one seed.

    system: a name (see `named.SYSTEMS`), or a system made to measure; then give it a `name`.
    progress: is told of every request that ends: how many have, and the simulated second.

    Raises:
        ValueError: an unknown system, or a request that no server can ever hold.
    """
    clock = Clock()
    build = named(system) if isinstance(system, str) else system
    front = build(Site(clock, server, replicas, Random(seed)))
    ended = 0

    def over(job: Job) -> None:
        nonlocal ended
        ended += 1
        if ended == len(jobs):
            clock.stop()
        if progress is not None:
            progress(ended, clock.now)

    def job_of(number: int, request: Request) -> Job:
        weight = workload.weights.get(request.client, 1.0)
        prompt = request.input_tokens + server.prompt_overhead
        return Job(f"r{number}", request, weight, prompt, over)

    jobs = [job_of(number, request) for number, request in enumerate(workload.requests)]
    arrivals = iter(jobs)

    def plan_next() -> None:
        job = next(arrivals, None)
        if job is not None:
            clock.at(job.request.at, lambda: arrive(job))

    def arrive(job: Job) -> None:
        plan_next()
        front.arrive(job)

    if jobs:
        plan_next()
        clock.run()
    if ended < len(jobs):
        raise RuntimeError(f"{len(jobs) - ended} requests were never served: a fault of {system}")
    return Run(
        workload=workload,
        system=name or (system if isinstance(system, str) else "custom"),
        replicas=replicas,
        outcomes=tuple(job.outcome for job in jobs),
        makespan=max((job.ended for job in jobs), default=0.0),
        seed=seed,
        numbers={"events": float(clock.events), **front.numbers()},
    )
