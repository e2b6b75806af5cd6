"""What the way to the engine costs: Fairlane beside vLLM's own server and plain ``ray.serve.llm``.

64 streaming chats of 128 tokens at all times on one engine, the same settings and the same
executor in every system: the engine's settings are those of deployments/local.yaml, with one
replica and as many slots as there are chats (`Engine`); see `vllm_uni_server` for why the executor
must be patched in the other two. Ray's dashboard is off wherever Ray runs. For each system

- tokens/s: output tokens by the server's own usage over the wall time of the load;
- front-end CPU per token: utime + stime of every process of the system that is no engine, Ray's
  daemons, proxies and controllers included, divided by output tokens (`process_cpu`);
- TTFT alone: median of 10 requests a round, one at a time.

**All are started, and one runs at a time**: the others are stopped by SIGSTOP (`freezer`), since an
idle Ray cluster uses 15 to 20% of a core. They take turns of some seconds, the order shifts by one
each round, and ratios are taken within a round, so that a machine whose speed drifts over minutes,
as shared ones do, meets all alike. The numbers are medians over rounds. The load driver runs in
this process, outside of every system; its own CPU, which is 12 to 40 us a token on the same cores,
weighs on all.

``python -m loadtests.bench_path [--rounds 7] [--only vllm,rayllm,fairlane]`` prints a table and,
as its last line, the numbers as JSON. ``--only plain,watched`` measures what watching costs
(`observed`). Logs of the systems lie in .local/bench. Every process it
started is ended when it ends, on Ctrl-C and SIGTERM too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from deployments.local_cluster import load
from deployments.tiny_model import ensure_tiny_model
from loadtests import driver
from loadtests.freezer import freeze, thaw
from loadtests.observed import PLAIN, WATCHED, trace_sink, write_variant
from loadtests.process_cpu import cpu_use, system_processes
from loadtests.system_end import end_system

LOGS = Path(".local/bench")
CONFIG = Path(__file__).resolve().parent.parent / "deployments" / "local.yaml"
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}

STREAMS = 64
OUTPUT_TOKENS = 128
PROMPT_BYTES = 128
WAVES = 6
WARM_UP_WAVES = 2
TTFT_REQUESTS = 10
THAW_S = 1.0  # to catch up on what came due while it was stopped
START_LIMIT_S = 300.0
LOAD_LIMIT_S = 180.0

_progress = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine that all systems run: model folder, name, vLLM's arguments, environment."""

    model: Path
    name: str
    arguments: Mapping[str, Any]
    environment: Mapping[str, str]

    @classmethod
    def of_config(cls) -> Engine:
        """Read it from Fairlane's own configuration; makes the tiny model if need be."""
        pool = load(CONFIG, replicas=1, max_num_seqs=STREAMS).app.pools[0]
        return cls(
            model=ensure_tiny_model(),
            name=pool.model_id,
            arguments=pool.llm["engine_kwargs"],
            environment=pool.llm.get("runtime_env", {}).get("env_vars", {}),
        )

    def flags(self) -> list[str]:
        """Write the arguments as vLLM's command line takes them."""
        flags: list[str] = []
        for key, value in self.arguments.items():
            name = key.replace("_", "-")
            if isinstance(value, bool):
                flags.append(f"--{name}" if value else f"--no-{name}")
            else:
                flags += [f"--{name}", str(value)]
        return flags


@dataclass(frozen=True, slots=True)
class System:
    """A server to measure: where it listens, when it is ready, who may ask, how it is started."""

    label: str
    port: int
    ready_path: str
    api_key: str | None
    command: Callable[[Engine, int], list[str]]

    @property
    def base_url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True, slots=True)
class Measured:
    """One round of one system. CPU in microseconds per output token."""

    tokens_per_s: float
    ttft_ms: float
    ttft_loaded_ms: float
    frontend_us_per_token: float
    engine_us_per_token: float
    frontend_by_process: Mapping[str, float]


def vllm_command(engine: Engine, port: int) -> list[str]:
    """vLLM's own server, without access log, with the single-process executor."""
    module = ["loadtests.vllm_uni_server", "--model", str(engine.model)]
    module += ["--served-model-name", engine.name, "--host", "127.0.0.1", "--port", str(port)]
    return [*module, "--disable-uvicorn-access-log", *engine.flags()]


def rayllm_command(engine: Engine, port: int) -> list[str]:
    """Plain ray.serve.llm, all of it at its defaults but the executor."""
    module = ["loadtests.rayllm_server", "--model", str(engine.model)]
    module += ["--served-model-name", engine.name, "--port", str(port)]
    return [*module, "--engine-kwargs", json.dumps(dict(engine.arguments))]


def fairlane_command(engine: Engine, port: int) -> list[str]:
    """Fairlane as in its local configuration, which is where ``engine`` came from.

    One router for the one replica: a second only adds wake-ups.
    """
    return _fairlane(CONFIG, port)


def _fairlane(config: Path, port: int) -> list[str]:
    module = ["deployments.cli", "serve", str(config), "--replicas", "1", "--routers", "1"]
    return [*module, "--max-num-seqs", str(STREAMS), "--port", str(port)]


def plain_command(engine: Engine, port: int) -> list[str]:
    """Fairlane with nothing watched."""
    return _fairlane(write_variant(CONFIG, PLAIN, LOGS / "plain.yaml"), port)


def watched_command(engine: Engine, port: int) -> list[str]:
    """Fairlane with all that can be watched."""
    return _fairlane(write_variant(CONFIG, WATCHED, LOGS / "watched.yaml"), port)


SYSTEMS = {
    "vllm": System("vLLM's own server", 8101, "/health", None, vllm_command),
    "rayllm": System("ray.serve.llm", 8102, "/v1/models", None, rayllm_command),
    "fairlane": System("Fairlane", 8103, "/readyz", "sk-local-alice", fairlane_command),
    "plain": System("unwatched", 8104, "/readyz", "sk-local-alice", plain_command),
    "watched": System("watched", 8105, "/readyz", "sk-local-alice", watched_command),
}
USUAL = ("vllm", "rayllm", "fairlane")


def _start(system: System, engine: Engine, log: Path) -> subprocess.Popen[bytes]:
    """Start a system in a session of its own, its output in a file."""
    path = os.pathsep.join(filter(None, [str(CONFIG.parents[1]), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **ENVIRONMENT, **engine.environment, "PYTHONPATH": path}
    environment |= _ports(system.port % 10)
    environment["FAIRLANE_HOME"] = str(log.with_suffix("").resolve())  # a store's data has one user
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *system.command(engine, system.port)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def _ports(number: int) -> dict[str, str]:
    """What Ray Serve listens on besides, apart for each system, as all are up at once."""
    ports = {
        "HAPROXY_METRICS_PORT": 9100 + 10 * number,
        "HAPROXY_STATS_PORT": 8400 + 10 * number,
        "FALLBACK_PROXY_HTTP_PORT": 8500 + 10 * number,
        "FALLBACK_PROXY_GRPC_PORT": 9500 + 10 * number,
    }
    for kind, first in (("HTTP", 20_000), ("GRPC", 26_000)):
        ports[f"DIRECT_INGRESS_MIN_{kind}_PORT"] = first + 1_000 * number
        ports[f"DIRECT_INGRESS_MAX_{kind}_PORT"] = first + 1_000 * number + 900
    return {f"RAY_SERVE_{name}": str(port) for name, port in ports.items()}


@contextlib.contextmanager
def running(system: System, engine: Engine, log: Path) -> Iterator[int]:
    """Start a system, wait until it answers, yield its session id, and end all of it after.

    Raises RuntimeError when its port is taken, when it ends or does not answer in time.
    """
    _require_free(system)
    process = _start(system, engine, log)
    try:
        _wait_until_ready(system, process, log)
        yield process.pid
    finally:
        end_system(process)


def _require_free(system: System) -> None:
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex(("127.0.0.1", system.port)) == 0:
            raise RuntimeError(
                f"port {system.port} is taken: stop what listens there, or it would be measured "
                f"instead of {system.label}"
            )


def _wait_until_ready(system: System, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{system.label} ended with {process.returncode}; see {log}")
        # Ray's HTTP side answers long before the engine behind it does: ask for a token too.
        if _answers(system) and _first_token(system):
            return
        time.sleep(0.5)
    raise RuntimeError(f"{system.label} was not ready after {START_LIMIT_S:.0f} s; see {log}")


def _answers(system: System) -> bool:
    try:
        with urllib.request.urlopen(system.base_url + system.ready_path, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _first_token(system: System) -> bool:
    report = asyncio.run(_load(system, streams=1, requests=1, output_tokens=1, limit_s=20))
    return report.records[0].done


async def _load(
    system: System,
    *,
    streams: int,
    requests: int,
    output_tokens: int = OUTPUT_TOKENS,
    limit_s: float = LOAD_LIMIT_S,
) -> driver.Report:
    client = driver.Client(
        name="bench",
        api_key=system.api_key,
        workload=driver.ClosedLoop(streams, requests),
        prompt_bytes=PROMPT_BYTES,
        max_tokens=output_tokens,
    )
    return await driver.run(system.base_url, [client], limit_s)


def measure(system: System, session: int) -> Measured:
    """Measure a warm system. Raises RuntimeError when a request did not end well."""
    alone = _drive(system, 1, TTFT_REQUESTS, 16)
    before = system_processes(session)
    report = _drive(system, STREAMS, STREAMS * WAVES, OUTPUT_TOKENS)
    used = cpu_use(before, system_processes(session))
    per_token = 1e6 / report.output_tokens
    return Measured(
        tokens_per_s=report.output_tokens_per_s,
        ttft_ms=1e3 * _median_ttft(alone),
        ttft_loaded_ms=1e3 * _median_ttft(report),
        frontend_us_per_token=used.frontend_s * per_token,
        engine_us_per_token=used.engine_s * per_token,
        frontend_by_process={
            name: round(seconds * per_token, 1)
            for name, seconds in sorted(used.frontend_by_name.items(), key=lambda item: -item[1])
            if seconds * per_token >= 0.5
        },
    )


def _drive(system: System, streams: int, requests: int, output_tokens: int) -> driver.Report:
    report = asyncio.run(
        _load(system, streams=streams, requests=requests, output_tokens=output_tokens)
    )
    whole = sum(r.done and r.output_tokens == output_tokens for r in report.records)
    if whole < requests:
        raise RuntimeError(
            f"{system.label}: {requests - whole} of {requests} requests did not end with "
            f"{output_tokens} tokens: {dict(report.errors())}"
        )
    return report


def _median_ttft(report: driver.Report) -> float:
    return statistics.median(r.ttft for r in report.records if r.ttft is not None)


def bench(names: Sequence[str], rounds: int) -> dict[str, list[Measured]]:
    """Measure the named systems ``rounds`` times in turn, shifting the order each round."""
    LOGS.mkdir(parents=True, exist_ok=True)
    engine = Engine.of_config()
    measured: dict[str, list[Measured]] = {name: [] for name in names}
    with contextlib.ExitStack() as stopped:
        sessions = {name: stopped.enter_context(_stopped(name, engine)) for name in names}
        for number in range(rounds):
            shift = number % len(names)
            for name in [*names[shift:], *names[:shift]]:
                with _thawed(sessions[name]):
                    result = measure(SYSTEMS[name], sessions[name])
                measured[name].append(result)
                _progress.print(
                    f"round {number + 1} of {rounds}, {SYSTEMS[name].label}: "
                    f"{result.tokens_per_s:,.0f} tokens/s, front end "
                    f"{result.frontend_us_per_token:.0f} us/token, TTFT {result.ttft_ms:.1f} ms",
                    highlight=False,
                )
    return measured


@contextlib.contextmanager
def _stopped(name: str, engine: Engine) -> Iterator[int]:
    """Start a system, warm it up and stop it; its session id."""
    _progress.print(f"starting {SYSTEMS[name].label}", style="dim")
    with running(SYSTEMS[name], engine, LOGS / f"{name}.log") as session:
        try:
            _drive(SYSTEMS[name], STREAMS, STREAMS * WARM_UP_WAVES, OUTPUT_TOKENS)
            freeze(session)
            yield session
        finally:
            thaw(session)  # or it could not end


@contextlib.contextmanager
def _thawed(session: int) -> Iterator[None]:
    thaw(session)
    time.sleep(THAW_S)
    yield
    freeze(session)


_KEYS = {
    "tps": "tokens_per_s",
    "ttft_ms": "ttft_ms",
    "ttft_loaded_ms": "ttft_loaded_ms",
    "frontend_us_per_token": "frontend_us_per_token",
    "engine_us_per_token": "engine_us_per_token",
}


def summary(measured: Mapping[str, Sequence[Measured]]) -> dict[str, Any]:
    """Return medians by ``system_key``, median ratios of tokens/s, and every round as it was."""
    numbers: dict[str, Any] = {}
    for name, results in measured.items():
        for key, attribute in _KEYS.items():
            median = statistics.median(getattr(result, attribute) for result in results)
            numbers[f"{name}_{key}"] = round(median, 2)
    for other in ("vllm", "rayllm"):
        for name in ("fairlane", "rayllm"):
            if name != other and name in measured and other in measured:
                pairs = zip(measured[name], measured[other], strict=True)
                ratio = statistics.median(a.tokens_per_s / b.tokens_per_s for a, b in pairs)
                numbers[f"{name}_tps_over_{other}"] = round(ratio, 3)
    if "plain" in measured and "watched" in measured:
        pairs = zip(measured["watched"], measured["plain"], strict=True)
        ratio = statistics.median(a.tokens_per_s / b.tokens_per_s for a, b in pairs)
        numbers["watched_tps_over_plain"] = round(ratio, 3)
    numbers["rounds"] = {name: [asdict(r) for r in results] for name, results in measured.items()}
    return numbers


def table(measured: Mapping[str, Sequence[Measured]]) -> Table:
    """Lay out the medians, one system a row."""
    numbers = summary(measured)
    result = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=f"{STREAMS} streaming chats of {OUTPUT_TOKENS} tokens, one engine",
        caption="medians over rounds; CPU per output token; TTFT alone and loaded",
    )
    result.add_column("system", no_wrap=True)
    for heading in ("tokens/s", "of vLLM's", "front end", "engine", "TTFT", "loaded"):
        result.add_column(heading, justify="right", no_wrap=True)
    for name in measured:
        ratio = 1.0 if name == "vllm" else numbers.get(f"{name}_tps_over_vllm")
        result.add_row(
            SYSTEMS[name].label,
            f"{numbers[f'{name}_tps']:,.0f}",
            "-" if ratio is None else f"{ratio:.2f}",
            f"{numbers[f'{name}_frontend_us_per_token']:.0f} us",
            f"{numbers[f'{name}_engine_us_per_token']:.0f} us",
            f"{numbers[f'{name}_ttft_ms']:.1f} ms",
            f"{numbers[f'{name}_ttft_loaded_ms']:.0f} ms",
        )
    return result


_PARTS = (
    (":Replica:", "replica"),
    (":Router", "router"),
    ("haproxy", "HAProxy"),
    (":Store", "store"),
    ("valkey", "store"),
    ("", "Ray and others"),
)


def part_of(process: str) -> str:
    """Which part of Fairlane a process is, by the name it gave itself."""
    return next(part for piece, part in _PARTS if piece in process)


def parts(results: Sequence[Measured]) -> dict[str, float]:
    """Return the front-end CPU of each part of Fairlane a token, medians over rounds."""
    rounds: list[dict[str, float]] = []
    for result in results:
        found = dict.fromkeys((part for _, part in _PARTS), 0.0)
        for process, used in result.frontend_by_process.items():
            found[part_of(process)] += used
        rounds.append(found)
    return {part: statistics.median(found[part] for found in rounds) for part in rounds[0]}


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = sorted(set(names) - set(SYSTEMS))
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"choose from {', '.join(SYSTEMS)}, not {text!r}")
    return names


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench_path",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=7, help="rounds of all systems (default 7)")
    parser.add_argument("--only", type=_names, default=list(USUAL), help="systems, with commas")
    options = parser.parse_args(arguments)
    # Started in the background of a script, SIGINT is ignored, here and in what is started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with trace_sink() if "watched" in options.only else contextlib.nullcontext():
            measured = bench(options.only, options.rounds)
    except KeyboardInterrupt:
        _progress.print("interrupted; everything started has been stopped")
        return 130
    except RuntimeError as error:
        _progress.print(f"bench_path: {error}", style="red", highlight=False)
        return 1
    Console().print(table(measured))
    if "fairlane" in measured:
        of_parts = [f"{part} {used:.0f}" for part, used in parts(measured["fairlane"]).items()]
        Console().print(f"Fairlane's front end, us a token: {', '.join(of_parts)}")
    print(json.dumps(summary(measured)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
