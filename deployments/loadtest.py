"""`fairlane loadtest`: a workload played against a server, under one policy or several.

This module only reads the command line until it is run, so that `fairlane` starts quickly.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.config import home

if TYPE_CHECKING:
    from rich.console import Console

    from loadtests.client_keys import ClientKeys
    from loadtests.outcome import Run
    from loadtests.real_run import RealRun
    from loadtests.scaling import Scale
    from loadtests.workloads.workload import Workload

BETWEEN_S = 2.0
LOCAL_ADMIN_KEY = "sk-local-admin"
DESCRIPTION = """
Play a workload against a server that speaks the OpenAI API: each request leaves at its time,
whatever happens to earlier ones. Prints tables, writes a report (HTML and JSON).
docs/loadtests.md tells more.
"""


def add_arguments(parser: argparse.ArgumentParser, local: Path) -> None:
    """Declare the options. local: the configuration whose development keys are the default."""
    what = parser.add_argument_group("what is played")
    which = what.add_mutually_exclusive_group()
    which.add_argument("--workload", metavar="NAME", help="one of --list")
    which.add_argument(
        "--csv", metavar="FILE", help="a file: arrival_s,client,input_tokens,output_tokens"
    )
    which.add_argument("--list", action="store_true", help="name the workloads, and end")
    what.add_argument(
        "--time-scale",
        type=_positive,
        default=1.0,
        metavar="X",
        help="a second of the workload takes X seconds; 0.1 is ten times as fast (default 1)",
    )
    what.add_argument(
        "--token-scale", type=_positive, default=1.0, metavar="X", help="multiplies all lengths"
    )
    what.add_argument(
        "--seconds",
        type=_positive,
        default=60.0,
        metavar="S",
        help="of the clock; later requests are left out (default 60)",
    )
    what.add_argument(
        "--drain",
        type=_positive,
        default=120.0,
        metavar="S",
        help="then wait this long for answers; what is open is closed (default 120)",
    )
    what.add_argument("--seed", type=int, help="of what is random (default: as recorded, or 0)")
    what.add_argument(
        "--copies", type=int, default=1, metavar="N", help="the load of N servers (needs --seed)"
    )

    where = parser.add_argument_group("where")
    where.add_argument("--url", default="http://127.0.0.1:8000", help="default: %(default)s")
    where.add_argument("--allow-remote", action="store_true", help="the server may be elsewhere")
    where.add_argument("--model", help="default: the first that the server lists")
    where.add_argument("--system", default="fairlane", metavar="NAME", help="its name in reports")
    where.add_argument("--replicas", type=int, default=1, metavar="N", help="engines, for reports")
    where.add_argument(
        "--policies",
        metavar="A,B",
        help="play under each of these policies of Fairlane, e.g. vtc,fcfs; then back to vtc",
    )
    where.add_argument(
        "--admin-key",
        metavar="KEY",
        help="sets the policy (default: FAIRLANE_ADMIN_KEY in the environment, or local.yaml's)",
    )

    who = parser.add_argument_group("who: by default the development keys of local.yaml")
    keys = who.add_mutually_exclusive_group()
    keys.add_argument("--keys", type=Path, metavar="FILE", help="client,key as CSV, or JSON")
    keys.add_argument("--key-template", metavar="TEXT", help="e.g. sk-test-{client}")
    keys.add_argument("--no-keys", action="store_true", help="for servers that ask for none")
    who.add_argument(
        "--header",
        action="append",
        default=[],
        metavar="NAME:VALUE",
        help="sent with each request; {client} in it is replaced",
    )
    who.add_argument(
        "--generate-config",
        action="store_true",
        help="print CONFIG with the workload's clients in it, make their keys in the file that "
        "--keys names (unless it is there), and end",
    )
    who.add_argument("--config", type=Path, default=local, help="a Serve config (local.yaml)")

    parser.add_argument(
        "--out", type=Path, metavar="DIR", help=f"for the report (default {home()}/loadtest)"
    )
    parser.add_argument(
        "--beside",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a *.run.json of an earlier run, of another system say, for the same report",
    )
    parser.set_defaults(run=loadtest)


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be above zero")
    return value


def loadtest(options: argparse.Namespace) -> int:
    """Do what the options say; returns an exit status."""
    import aiohttp
    from rich.console import Console

    from loadtests.client_keys import KeysError
    from loadtests.real_run import UnfitServer
    from loadtests.workloads.registry import descriptions

    console = Console()
    try:
        if options.list:
            print(descriptions())
            return 0
        workload = _workload(options)
        if options.generate_config:
            return _generate_config(options, workload)
        return _measure(options, workload, console)
    except KeyboardInterrupt:
        print("fairlane: load test interrupted; its requests are closed", file=sys.stderr)
        return 130
    except (KeysError, UnfitServer, ValueError, OSError, aiohttp.ClientError) as error:
        print(f"fairlane: {error or type(error).__name__}", file=sys.stderr)
        return 1


def _workload(options: argparse.Namespace) -> Workload:
    from loadtests.workloads.csv_file import read_csv
    from loadtests.workloads.registry import workload
    from loadtests.workloads.scale import copies

    if options.workload:
        return workload(options.workload, replicas=options.copies, seed=options.seed)
    if not options.csv:
        raise ValueError("name a workload with --workload or --csv; --list shows what there is")
    recorded = read_csv(Path(options.csv))
    if options.seed is not None:
        return copies(recorded, options.copies, seed=options.seed)
    if options.copies > 1:
        raise ValueError("several copies of a workload need a --seed to be jittered by")
    return recorded


def _generate_config(options: argparse.Namespace, workload: Workload) -> int:
    import yaml

    from loadtests.client_keys import KeysError, new_keys, read_keys, with_clients, write_keys

    if options.keys is None:
        raise KeysError("say with --keys FILE where the keys are to be kept")
    if options.keys.exists():
        keys = read_keys(options.keys)
        keys.require(workload)
    else:
        keys = new_keys(workload)
        write_keys(options.keys, keys, workload.clients)
        print(f"fairlane: wrote new keys to {options.keys}", file=sys.stderr)
    content = yaml.safe_load(options.config.read_text(encoding="utf-8"))
    made = with_clients(content, workload, keys)
    yaml.safe_dump(made, sys.stdout, sort_keys=False, width=100)
    return 0


def _keys(options: argparse.Namespace, workload: Workload) -> ClientKeys:
    from deployments.local_cluster import load
    from loadtests.client_keys import NO_KEYS, lent_keys, read_keys, template_keys

    if options.no_keys:
        return NO_KEYS
    if options.key_template is not None:
        return template_keys(workload, options.key_template)
    if options.keys is not None:
        keys = read_keys(options.keys)
        keys.require(workload)
        return keys
    known = load(options.config).app.clients
    return lent_keys(workload, {c.name: c.keys for c in known if c.keys and c.weight == 1.0})


def _headers(given: Sequence[str]) -> dict[str, str]:
    headers = {}
    for text in given:
        name, colon, value = text.partition(":")
        if not colon or not name.strip():
            raise ValueError(f"--header {text!r} is not NAME:VALUE")
        headers[name.strip()] = value.strip()
    return headers


def _measure(options: argparse.Namespace, workload: Workload, console: Console) -> int:
    from loadtests.run_view import asked
    from loadtests.scaling import Scale

    scale = Scale(options.time_scale, options.token_scale, options.seconds)
    keys = _keys(options, workload)
    _allow_many_connections()
    console.print(asked(scale.fit(workload), scale.time_scale), highlight=False)
    runs: list[RealRun] = []
    with _policies(options) as policies:
        for system, set_policy in policies:
            if runs:
                time.sleep(BETWEEN_S)
            set_policy()
            runs.append(_play(options, workload, keys, scale=scale, system=system, console=console))
    _report(options, [real.run for real in runs], console)
    answered = [any(o.ending == "done" for o in real.run.outcomes) for real in runs]
    return 0 if all(answered) else 1


def _allow_many_connections() -> None:
    """Raise the limit on open files as far as this user may: each open request is one."""
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def _policies(
    options: argparse.Namespace,
) -> Iterator[Sequence[tuple[str, Callable[[], None]]]]:
    """Yield what to play under: the name of each system and what makes it so."""
    if options.policies is None:
        yield [(options.system, lambda: None)]
        return
    from loadtests.demo import policy_setter

    key = options.admin_key or os.environ.get("FAIRLANE_ADMIN_KEY", LOCAL_ADMIN_KEY)
    set_policy = policy_setter(options.url, key)
    names = [name.strip() for name in options.policies.split(",")]
    try:
        yield [(name, partial(set_policy, name)) for name in names]
    finally:
        set_policy("vtc")


def _play(
    options: argparse.Namespace,
    workload: Workload,
    keys: ClientKeys,
    *,
    scale: Scale,
    system: str,
    console: Console,
) -> RealRun:
    from loadtests.real_run import play
    from loadtests.run_view import bar, clients_table, findings

    with bar(console, system, scale.fit(workload), scale.time_scale) as advance:
        real = asyncio.run(
            play(
                options.url,
                workload,
                keys,
                scale=scale,
                system=system,
                replicas=options.replicas,
                model=options.model,
                headers=_headers(options.header),
                drain_s=options.drain,
                allow_remote=options.allow_remote,
                on_progress=advance,
            )
        )
    console.print(clients_table(real))
    for sentence in findings(real):
        console.print(f"{system}: {sentence}", highlight=False, markup=False)
    return real


def _report(options: argparse.Namespace, runs: Sequence[Run], console: Console) -> None:
    from loadtests import run_file
    from loadtests.report.page import save
    from loadtests.run_report import report

    out: Path = options.out or home() / "loadtest"
    beside = [run_file.load(path) for path in options.beside]
    name = runs[0].workload.name
    page, numbers = save(report([*runs, *beside]), out, name)
    for run in runs:
        run_file.save(run, out / f"{name}.{run.system}.run.json")
    console.print(f"report:  {page}\nnumbers: {numbers}", highlight=False, soft_wrap=True)
