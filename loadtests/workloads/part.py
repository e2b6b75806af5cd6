"""Parts of workloads: some of the clients, or some of the routers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from loadtests.workloads.workload import Workload


def only(workload: Workload, clients: Collection[str]) -> Workload:
    """Return what these clients send, the rest left out: how it is to be alone."""
    kept = tuple(request for request in workload.requests if request.client in clients)
    weights = {name: w for name, w in workload.weights.items() if name in clients}
    return replace(workload, requests=kept, weights=weights)


def through_routers(workload: Workload, reaches: Mapping[str, Sequence[int]]) -> Workload:
    """Return the workload with clients that reach only some routers, each of these in turn.

    reaches: the routers' numbers by client; a client that isn't named reaches any.
    """
    turns = dict.fromkeys(reaches, 0)
    requests = []
    for request in workload.requests:
        routers = reaches.get(request.client)
        if routers:
            turn = turns[request.client]
            turns[request.client] = turn + 1
            requests.append(replace(request, entry=routers[turn % len(routers)]))
        else:
            requests.append(request)
    return replace(workload, requests=tuple(requests))
