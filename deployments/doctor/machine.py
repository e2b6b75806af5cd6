"""Limits of the operating system, memory, the clock, ports."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from deployments.doctor.finding import Finding, State

AREA = "machine"
OPEN_FILES = 65_536
SHARED_MEMORY_GIB = 2.0
MEMORY_GIB = 8.0  # routers, one replica and Ray with the tiny model
DISK_GIB = 5.0
PORTS = {  # taken by Ray and HAProxy on every machine
    6379: "Ray's control plane",
    8265: "Ray's dashboard",
    8404: "HAProxy's statistics",
    9101: "HAProxy's metrics",
}
say = partial(Finding, AREA)


def look(http_port: int | None = None, admin_port: int | None = None) -> Iterator[Finding]:
    """http_port, admin_port: which Fairlane is to listen on here."""
    yield _open_files()
    yield _memory()
    yield _space("shared memory", Path("/dev/shm"), SHARED_MEMORY_GIB, "docker run --shm-size, or")
    yield _space("temporary files", Path("/tmp"), DISK_GIB, "Ray keeps its sessions there:")
    yield _clock()
    wanted = dict(PORTS)
    wanted |= {port: "Fairlane" for port in (http_port,) if port is not None}
    wanted |= {port: "Fairlane's admin API" for port in (admin_port,) if port is not None}
    for port, use in sorted(wanted.items()):
        yield _port(port, use)


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = f"{soft} now, {hard} at most"
    if min(hard, OPEN_FILES) == OPEN_FILES or hard == resource.RLIM_INFINITY:
        if soft >= OPEN_FILES:
            return say("open files", State.OK, found)
        return say(
            "open files", State.WARNING, found, f"ulimit -n {OPEN_FILES}: a stream takes two"
        )
    mend = f"raise the hard limit to {OPEN_FILES} (LimitNOFILE, /etc/security/limits.conf)"
    return say("open files", State.WARNING, found, mend)


def _memory() -> Finding:
    gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    limit = _cgroup_limit_gib()
    usable = gib if limit is None else min(gib, limit)
    found = f"{usable:.1f} GiB, {os.cpu_count()} cores"
    if usable >= MEMORY_GIB:
        return say("memory", State.OK, found)
    mend = f"have {MEMORY_GIB:.0f} GiB for routers, Ray and one small replica on one machine"
    return say("memory", State.WARNING, found, mend)


def _cgroup_limit_gib() -> float | None:
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return None
    return None if text == "max" else int(text) / 2**30


def _space(about: str, folder: Path, wanted_gib: float, why: str) -> Finding:
    try:
        free = shutil.disk_usage(folder).free / 2**30
    except OSError as error:
        return say(about, State.FAILED, f"{folder}: {error.strerror}", f"make {folder}")
    found = f"{free:.1f} GiB free in {folder}"
    if free >= wanted_gib:
        return say(about, State.OK, found)
    return say(about, State.WARNING, found, f"{why} have {wanted_gib:g} GiB in {folder}")


class _Timex(ctypes.Structure):
    """The head of `struct timex`; the kernel writes 208 bytes on 64-bit machines."""

    _fields_ = [("modes", ctypes.c_uint), ("rest", ctypes.c_char * 252)]


def _clock() -> Finding:
    """The kernel knows whether something keeps the clock right."""
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(_Timex()))
    except (OSError, AttributeError):
        state = -1
    if state == -1:
        return say("clock", State.SKIPPED, "the kernel does not tell")
    if state == 5:  # TIME_ERROR
        mend = "run chrony or systemd-timesyncd: clocks must agree within 15 s"
        return say("clock", State.WARNING, "nothing keeps it right, says the kernel", mend)
    return say("clock", State.OK, "is kept right")


def _port(port: int, use: str) -> Finding:
    about = f"port {port}"
    try:
        with socket.create_server(("", port)):
            return say(about, State.OK, f"free for {use}")
    except OSError:
        mend = f"fine if that is {use} itself at work; else end what has it, or take another"
        return say(about, State.WARNING, f"is taken; {use} wants it", mend)
