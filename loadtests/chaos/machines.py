"""Machines in one: namespaces of the kernel, each with its address, its processes and its cable.

A `Machine` is a network, a process and a mount namespace. Its processes see no others; the first of
them takes all with it when it ends, so killing that one is pulling the plug. Its cable is a veth
pair into a `Switch`, a bridge that the harness has an address on. Both need root. Namespaces and
cables vanish with their processes, also when the harness is killed; the switch is taken away at its
end, or before the next one is made.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from loadtests.chaos.children import spawn

SWITCH = "flchaos0"
NETWORK = "10.77.0"
HOST = f"{NETWORK}.1"
# A bridge without an address of its own takes the lowest of its ports', and another one when that
# port goes: then the others would not reach the host until they ask for its address again.
HOST_MAC = "02:fa:10:77:00:01"
START_S = 10.0
TOOLS = ("ip", "unshare", "nsenter", "mount")
# What Ray and Serve's HAProxy write by fixed names, on every machine apart.
OWN_FOLDERS = ("/tmp/ray", "/tmp/haproxy-serve")


class MachineFailedError(Exception):
    """A machine or the switch could not be made; the message says why."""


def missing() -> str | None:
    """Why there can be no machines here; None if there can."""
    if os.geteuid() != 0:
        return "only root can make network namespaces"
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


@contextlib.contextmanager
def switch() -> Iterator[None]:
    """Have the bridge, and the harness at `HOST` on it. Raises MachineFailedError."""
    if _ports():
        raise MachineFailedError(f"{SWITCH} has machines; does another harness run?")
    _take_away_switch()
    try:
        _ip("link", "add", SWITCH, "address", HOST_MAC,
            "type", "bridge", "stp_state", "0", "forward_delay", "0")  # fmt: skip
        _ip("address", "add", f"{HOST}/24", "dev", SWITCH)
        _ip("link", "set", SWITCH, "up")
        yield
    finally:
        _take_away_switch()


class Machine:
    """One machine: `start`, `pull_the_plug`, `cut` and `mend` its cable; again, if you like."""

    def __init__(self, name: str, number: int, folder: Path) -> None:
        """number: of its address, 2 to 254. folder: its own, for logs."""
        self.address = f"{NETWORK}.{number}"
        self.log = folder / f"{name}.log"
        self._cable = f"{SWITCH[:-1]}-{number}"
        self._folder = folder / name
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def session(self) -> int:
        """Of its processes. It must have been started."""
        assert self._process is not None
        return self._process.pid

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start it, running a program in the foreground. Raises MachineFailedError."""
        script = "\n".join(
            [
                *(
                    f"mount --bind {shlex.quote(str(own))} {shlex.quote(seen)} || exit"
                    for own, seen in self._own_folders()
                ),
                "ip link set lo up",
                "until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done",
                f"ip address add {self.address}/24 dev eth0",
                "ip link set eth0 up",
                f"ip route add default via {HOST}",
                shlex.join(command),
                "exit $?",  # so that the shell stays, and reaps what its children leave
            ]
        )
        unshare = str(shutil.which("unshare"))
        self._process = spawn(
            [unshare, "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
             "sh", "-c", script],
            self.log,
            environment=environment,
        )  # fmt: skip
        self._wait_for_namespace()
        inside = f"{self._cable}-in"
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", inside)
        _ip("link", "set", self._cable, "master", SWITCH, "up")
        _ip("link", "set", inside, "netns", str(self.session), "name", "eth0")

    def _own_folders(self) -> Iterator[tuple[Path, str]]:
        for seen in OWN_FOLDERS:
            own = self._folder / Path(seen).name
            own.mkdir(parents=True, exist_ok=True)
            Path(seen).mkdir(exist_ok=True)
            yield own.resolve(), seen

    def _wait_for_namespace(self) -> None:
        assert self._process is not None
        ours = os.readlink("/proc/self/ns/net")
        deadline = time.monotonic() + START_S
        while True:
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{self.session}/ns/net") != ours:
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise MachineFailedError(f"no namespace came to be; see {self.log}")
            time.sleep(0.01)

    def inside(self, command: Sequence[str]) -> list[str]:
        """The command that runs another one on this machine."""
        children = Path(f"/proc/{self.session}/task/{self.session}/children").read_text()
        first = children.split()[0]
        return [str(shutil.which("nsenter")), "-t", first, "-n", "-m", "-p", *command]

    def cut(self) -> None:
        """Pull the cable: bytes are dropped, both ways, and nobody is told."""
        _ip("link", "set", self._cable, "down")

    def mend(self) -> None:
        """Put the cable back."""
        _ip("link", "set", self._cable, "up")

    def pull_the_plug(self) -> None:
        """End all its processes at once; none of their connections can say goodbye."""
        if self._process is None:
            return
        with contextlib.suppress(MachineFailedError):  # it never got a cable
            self.cut()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.session, signal.SIGKILL)
        self._process.wait()
        with contextlib.suppress(MachineFailedError):  # usually gone with the namespace by now
            _ip("link", "delete", self._cable)
        self._process = None


def _ports() -> list[str]:
    shown = subprocess.run(
        ["ip", "-o", "link", "show", "master", SWITCH], capture_output=True, text=True, check=False
    )
    return shown.stdout.splitlines()


def _take_away_switch() -> None:
    with contextlib.suppress(MachineFailedError):
        _ip("link", "delete", SWITCH)


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise MachineFailedError(f"ip {shlex.join(arguments)}: {done.stderr.strip()}")
