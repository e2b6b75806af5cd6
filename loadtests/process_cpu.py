"""CPU time of a system under test: every process of one session and their descendants.

A system is started with ``start_new_session=True``, so the processes it makes, and those they
make, carry its session id, even when a parent dies and the kernel hangs its children elsewhere;
one that opens a session of its own is still found as a descendant. CPU time is ``utime + stime``
of /proc/PID/stat (proc(5)), in steps of one clock tick, usually 10 ms. What a process used that
ended between two looks is not seen, which suits servers whose processes stay.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
_ENGINE_NAMES = ("VLLM::EngineCor", "VLLM::Worker")


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process for good: its number may be given again, but not with the same start time."""

    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True)
class Process:
    """One look at a process: the name it gave itself or the kernel's, and CPU time in seconds."""

    id: ProcessId
    parent: int
    session: int
    name: str
    cpu_s: float

    @property
    def is_engine(self) -> bool:
        """Whether this is a vLLM engine or its worker; all else of a system is its front end."""
        return self.name.startswith(_ENGINE_NAMES)


def parse_stat(stat: str) -> Process:
    """Read one line of /proc/PID/stat. The name may hold spaces and parentheses."""
    pid, _, rest = stat.partition(" (")
    name, _, fields = rest.rpartition(") ")
    values = fields.split()
    ticks = int(values[11]) + int(values[12])
    return Process(
        id=ProcessId(int(pid), int(values[19])),
        parent=int(values[1]),
        session=int(values[3]),
        name=name,
        cpu_s=ticks * _TICK_S,
    )


def system_processes(session: int) -> dict[ProcessId, Process]:
    """Return the processes of a session and all their descendants, as they are now."""
    return members(_every_process(), session)


def members(processes: Iterable[Process], session: int) -> dict[ProcessId, Process]:
    """Pick those of a session and all their descendants."""
    everyone = list(processes)
    children: dict[int, list[Process]] = {}
    for process in everyone:
        children.setdefault(process.parent, []).append(process)
    found: dict[ProcessId, Process] = {}
    waiting = [process for process in everyone if process.session == session]
    while waiting:
        process = waiting.pop()
        if process.id not in found:
            found[process.id] = process
            waiting.extend(children.get(process.id.pid, ()))
    return found


def _every_process() -> list[Process]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                process = parse_stat((entry / "stat").read_text())
                title = (entry / "cmdline").read_bytes()
                found.append(replace(process, name=full_name(process.name, title)))
            except (FileNotFoundError, ProcessLookupError):
                continue  # It ended between the listing and the look.
    return found


def full_name(name: str, command_line: bytes) -> str:
    """Return what Ray and vLLM write over a process's command line, else the kernel's name.

    The kernel keeps 15 bytes of a name, by which a router and a replica look alike. Ray adds the
    method it runs at the moment after a dot, which is left out.
    """
    title = command_line.split(b"\0", 1)[0].split(b" ", 1)[0].decode(errors="replace")
    return title.split(".", 1)[0] if title.startswith(("ray::", "VLLM::")) else name


@dataclass(frozen=True, slots=True)
class CpuUse:
    """CPU seconds a system used between two looks: the engine, and the front end by name."""

    engine_s: float
    frontend_s: float
    frontend_by_name: Mapping[str, float]


def cpu_use(before: Mapping[ProcessId, Process], after: Mapping[ProcessId, Process]) -> CpuUse:
    """Return what was used between two looks; a process that is new counts from its start."""
    engine_s = 0.0
    by_name: dict[str, float] = {}
    for key, process in after.items():
        earlier = before.get(key)
        used = process.cpu_s - (earlier.cpu_s if earlier else 0.0)
        if process.is_engine:
            engine_s += used
        else:
            by_name[process.name] = by_name.get(process.name, 0.0) + used
    return CpuUse(engine_s, sum(by_name.values()), by_name)


def alive(key: ProcessId) -> bool:
    """Whether this very process still runs (one that ended and waits for its parent does not)."""
    try:
        stat = Path(f"/proc/{key.pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return parse_stat(stat).id == key and stat.rpartition(") ")[2][0] != "Z"
