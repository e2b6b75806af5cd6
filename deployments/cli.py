"""The `fairlane` command."""

from __future__ import annotations

import argparse
import getpass
import sys
from functools import partial
from pathlib import Path

from deployments import capacity, loadtest, top
from deployments.admin import commands as admin
from deployments.configuration import commands as configuration
from deployments.doctor import commands as doctor
from router.clients import hash_key

LOCAL = Path(__file__).with_name("local.yaml")


def main() -> None:
    """Entry point of the console script."""
    parser = argparse.ArgumentParser(
        prog="fairlane",
        description="Serve language models to many clients and give each its fair share.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    serve = commands.add_parser(
        "serve",
        help="run everything on this machine; Ctrl-C ends it",
        description="Start Ray, the embedded store, the vLLM replicas and the routers on this "
        "machine, from a Serve config file. On a Ray cluster use `serve run CONFIG` instead.",
    )
    _config_arguments(serve)
    serve.set_defaults(run=_serve)

    demo = commands.add_parser(
        "demo",
        help="a flooder against a polite client, with fairness and without",
        description="Drive the running app (started if there is none) with two clients over HTTP, "
        "first under VTC, then under FCFS; print a table and draw a picture.",
    )
    _config_arguments(demo)
    demo.add_argument("--seconds", type=float, default=60, help="per policy (default 60)")
    demo.add_argument("--base-url", default=None, help="default: where CONFIG listens")
    demo.add_argument("--admin-key", default="sk-local-admin", help="switches the policy")
    demo.set_defaults(run=_demo)

    load_test = commands.add_parser(
        "loadtest",
        help="play a workload against a server, with tables and a report",
        description=loadtest.DESCRIPTION,
    )
    loadtest.add_arguments(load_test, LOCAL)

    hasher = commands.add_parser(
        "hash-key",
        help="the hash of an API key, for a config file",
        description="Print the SHA-256 of an API key, which is all a configuration needs of it. "
        "The key is read from the terminal or from standard input, never from the command line.",
    )
    hasher.set_defaults(run=_hash_key)

    configuration.add_commands(commands, LOCAL)
    doctor.add_command(commands, LOCAL)
    admin.add_commands(commands)
    top.add_command(commands)
    capacity.add_command(commands)

    arguments = parser.parse_args()
    sys.exit(arguments.run(arguments))


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", nargs="?", type=Path, default=LOCAL, help="a Serve config file (local.yaml)"
    )
    parser.add_argument("--replicas", type=int, help="vLLM replicas, instead of the config's")
    parser.add_argument("--routers", type=int, help="routers, instead of the config's")
    parser.add_argument("--max-num-seqs", type=int, help="requests in a batch, likewise")
    parser.add_argument("--port", type=int, help="HTTP port, likewise")


def _overrides(arguments: argparse.Namespace) -> dict[str, int | None]:
    return {
        name: getattr(arguments, name) for name in ("replicas", "routers", "max_num_seqs", "port")
    }


def _serve(arguments: argparse.Namespace) -> int:
    from deployments.local_cluster import LocalCluster, load

    return LocalCluster(partial(load, arguments.config, **_overrides(arguments))).run()


def _demo(arguments: argparse.Namespace) -> int:
    from deployments.demo import demo
    from deployments.local_cluster import load

    overrides = _overrides(arguments)
    serve_arguments = [str(arguments.config)]
    for name, value in overrides.items():
        if value is not None:
            serve_arguments += (f"--{name.replace('_', '-')}", str(value))
    settings = load(arguments.config, **overrides)
    return demo(
        settings, arguments.base_url, arguments.admin_key, arguments.seconds, serve_arguments
    )


def _hash_key(_: argparse.Namespace) -> int:
    key = getpass.getpass("API key: ") if sys.stdin.isatty() else sys.stdin.readline().strip()
    if not key:
        print("no key was given", file=sys.stderr)
        return 2
    print(hash_key(key))
    return 0


if __name__ == "__main__":
    main()
