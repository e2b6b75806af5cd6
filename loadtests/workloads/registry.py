"""All workloads by name, each with a line on what it is for.

The paper's are copied for R replicas and jittered (`loadtests.workloads.scale`); without a seed
one is as recorded, to the request. Ours grow with the replicas. A name that ends in ``.csv`` or
``.csv.gz`` is a file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from loadtests.workloads import ours
from loadtests.workloads.arena import arena
from loadtests.workloads.csv_file import read_csv
from loadtests.workloads.paper import paper_suite
from loadtests.workloads.paper_suites import SUITES
from loadtests.workloads.scale import copies
from loadtests.workloads.workload import Workload

Make = Callable[[int, int | None], Workload]


@dataclass(frozen=True, slots=True)
class Entry:
    """A workload that can be made. make: of the number of replicas and a seed."""

    name: str
    about: str
    make: Make


def _copied(read: Callable[[], Workload]) -> Make:
    def make(replicas: int, seed: int | None) -> Workload:
        if seed is not None:
            return copies(read(), replicas, seed=seed)
        if replicas == 1:
            return read()
        raise ValueError("several copies of a workload need a seed to be jittered by")

    return make


def _suite(name: str) -> Entry:
    return Entry(name, f"paper: {SUITES[name].shows}", _copied(lambda: paper_suite(name)))


def _ours(name: str, build: Callable[..., Workload]) -> Entry:
    def make(replicas: int, seed: int | None) -> Workload:
        return build(replicas=replicas, seed=seed or 0)

    about = (build.__doc__ or "").partition("\n")[0].rstrip(".")
    return Entry(name, about, make)


_OURS = (
    ours.zipf_tenants,
    ours.weighted,
    ours.noisy_neighbour,
    ours.on_off,
    ours.long_prompts_and_chats,
    ours.aborters,
    ours.many_keys,
    ours.shared_prefixes,
    ours.some_routers,
    ours.newcomer,
    ours.thousand_connections,
)

REGISTRY: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("arena", "paper: the real trace, 27 clients (tables 2 and 3)", _copied(arena)),
        *map(_suite, SUITES),
        *(_ours(build.__name__, build) for build in _OURS),
    )
}


def workload(name: str, *, replicas: int = 1, seed: int | None = None) -> Workload:
    """Return a workload by its name, or from a file.

    Raises:
        ValueError: there is no such workload, or several copies are asked for without a seed.
        BadWorkloadFile: the file is not a workload.
        OSError: the file can't be read.
    """
    if name.endswith((".csv", ".csv.gz")):
        return _copied(lambda: read_csv(Path(name)))(replicas, seed)
    if name not in REGISTRY:
        raise ValueError(f"no workload {name!r}; there are {', '.join(REGISTRY)}, and *.csv files")
    return REGISTRY[name].make(replicas, seed)


def descriptions() -> str:
    """Return a line on each workload, for a command's help."""
    width = max(map(len, REGISTRY))
    return "\n".join(f"  {entry.name:{width}}  {entry.about}" for entry in REGISTRY.values())
