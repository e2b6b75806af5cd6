"""The commands: their arguments, and the one or two requests that each is; `usage` has its own."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deployments.admin.api import (
    DEFAULT_URL,
    KEY_VARIABLE,
    URL_VARIABLE,
    AdminApi,
    CommandError,
    admin_key,
    path_of,
)
from deployments.admin.arguments import key_id, limits, seconds, weight
from deployments.admin.classes import classes
from deployments.admin.explain import explain, requests
from deployments.admin.shadow import shadow
from deployments.admin.tables import (
    CLIENT_COLUMNS,
    EVENT_COLUMNS,
    GROUP_COLUMNS,
    KEY_COLUMNS,
    show,
)
from deployments.admin.usage import add_arguments as add_usage_arguments
from deployments.admin.usage import usage

Command = Callable[[AdminApi, argparse.Namespace], None]

EXAMPLES = f"""\
examples:
  export {KEY_VARIABLE}=...                 # an admin key of the Serve config file
  fairlane groups add acme --weight 2
  fairlane clients add search --group acme --weight 3
  KEY=$(fairlane keys create search --label laptop --expires 90d)
  fairlane keys list search
  fairlane keys rotate 1a2b3c4d5e6f --overlap 24h
  fairlane keys revoke 1a2b3c4d5e6f
  fairlane clients set search --disable
  fairlane requests --client search
  fairlane explain 9f2c41d7-1042
  fairlane groups set acme --limits tokens_per_minute=200000,concurrency=64
  fairlane shadow
  fairlane usage --from 2026-11-01 --to 2026-11-30 --by client,model --csv

Changes hold on every router within a second; nothing is restarted. Clients of the Serve config
file are listed too, but are changed there. docs/clients.md tells the rest.
"""


def add_commands(commands: Any) -> None:
    """Add these families and commands to the subcommands of `fairlane`."""
    _add_clients(_family(commands, "clients", "who is billed for service, and with which weight"))
    _add_groups(_family(commands, "groups", "organisations and teams that clients belong to"))
    _add_keys(_family(commands, "keys", "API keys: make, rotate, revoke"))
    add_usage_arguments(_leaf(commands, "usage", usage, "what clients have used, by the day"))
    _leaf(commands, "shadow", shadow, "who is served out of turn, and what vtc would change")
    _leaf(commands, "classes", classes, "priority classes, and what each is owed now")
    why = _leaf(commands, "explain", explain, "why a request waited, where it went, what it cost")
    why.add_argument("request", metavar="ID", help="the header x-fairlane-request-id of its answer")
    recent = _leaf(commands, "requests", requests, "the last requests, the newest first")
    recent.add_argument("--client", metavar="NAME", help="only of this one")
    recent.add_argument("--limit", type=int, default=50, help="how many (default 50)")
    audit = _leaf(commands, "audit", _audit, "who changed what, the newest first")
    audit.add_argument("--limit", type=int, default=50, help="how many (default 50; at most 1000)")


def _add_clients(commands: Any) -> None:
    list_ = _leaf(commands, "list", _list_clients, "all clients, by name")
    list_.add_argument("--search", default="", metavar="TEXT", help="only names that contain it")
    list_.add_argument("--group", default="", help="only clients directly in this group")
    add = _leaf(commands, "add", _add_client, "make a client; then give it keys")
    add.add_argument("name")
    add.add_argument("--weight", type=weight, default=1.0, help="its share (default 1)")
    add.add_argument("--group", help="an organisation (acme) or team (acme/ml); default: none")
    _add_limits(add, "its limits for each model")
    add.add_argument("--class", dest="priority_class", help="its class (default: the first)")
    _leaf(commands, "show", _show_client, "one client and its keys").add_argument("name")
    set_ = _leaf(commands, "set", _set_client, "change a client; what is not named stays")
    set_.add_argument("name")
    set_.add_argument("--weight", type=weight, help="its share")
    _add_limits(set_, "its limits for each model, in place of those it had; none: no limits")
    move = set_.add_mutually_exclusive_group()
    move.add_argument("--group", help="move it there")
    move.add_argument("--no-group", action="store_true", help="take it out of its group")
    reclass = set_.add_mutually_exclusive_group()
    reclass.add_argument("--class", dest="priority_class", help="put it into that priority class")
    reclass.add_argument("--first-class", action="store_true", help="put it into the first")
    state = set_.add_mutually_exclusive_group()
    state.add_argument("--enable", action="store_true", help="let its keys work again")
    state.add_argument("--disable", action="store_true", help="let none of its keys work")
    remove = _leaf(commands, "remove", _remove_client, "remove a client with all its keys")
    remove.add_argument("name")


def _add_groups(commands: Any) -> None:
    list_ = _leaf(commands, "list", _list_groups, "all groups, by name")
    list_.add_argument("--search", default="", metavar="TEXT", help="only names that contain it")
    add = _leaf(commands, "add", _add_group, "make an organisation, or a team in one")
    set_ = _leaf(commands, "set", _set_group, "change the weight or the limits of a group")
    for command, default in ((add, 1.0), (set_, None)):
        command.add_argument("name", help="acme, or acme/ml for a team of acme")
        command.add_argument("--weight", type=weight, default=default, help="its share")
        _add_limits(command, "limits of all its clients together, for each model; none: no limits")
    remove = _leaf(commands, "remove", _remove_group, "remove a group that nobody is in")
    remove.add_argument("name")


def _add_limits(command: argparse.ArgumentParser, about: str) -> None:
    command.add_argument("--limits", type=limits, metavar="NAME=NUMBER,..", help=about)


def _add_keys(commands: Any) -> None:
    _leaf(commands, "list", _list_keys, "the keys of a client, ended ones too").add_argument(
        "client"
    )
    create = _leaf(
        commands, "create", _create_key, "make a key; it is shown this once, on standard output"
    )
    create.add_argument("client")
    create.add_argument("--label", default="", help="what it is for")
    create.add_argument(
        "--expires", type=seconds, metavar="DURATION", help="such as 90d or 12h; default: never"
    )
    rotate = _leaf(
        commands, "rotate", _rotate_key, "make a new key in place of an old one, shown this once"
    )
    rotate.add_argument(
        "key", type=key_id, metavar="KEY-ID", help="as `fairlane keys list` shows it"
    )
    rotate.add_argument(
        "--overlap",
        type=seconds,
        default=86400,
        metavar="DURATION",
        help="how long the old key goes on working (default 24h; 0: not at all)",
    )
    revoke = _leaf(commands, "revoke", _revoke_key, "end a key at once and for good")
    revoke.add_argument(
        "key", type=key_id, metavar="KEY-ID", help="as `fairlane keys list` shows it"
    )


def _add_key_id(command: argparse.ArgumentParser) -> None:
    shown = "as `fairlane keys list` shows it"
    command.add_argument("key", type=key_id, metavar="KEY-ID", help=shown)


def _family(commands: Any, name: str, about: str) -> Any:
    parser = commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser.add_subparsers(dest="action", required=True, metavar="ACTION")


def _leaf(commands: Any, name: str, command: Command, about: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--base-url",
        default=os.environ.get(URL_VARIABLE, DEFAULT_URL),
        metavar="URL",
        help=f"where Fairlane, or its admin port, listens (default: {URL_VARIABLE}, "
        f"else {DEFAULT_URL})",
    )
    parser.add_argument(
        "--admin-key-file",
        type=Path,
        metavar="FILE",
        help=f"read the admin key from there (default: {KEY_VARIABLE} in the environment)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for scripts")
    parser.set_defaults(run=lambda arguments: run(command, arguments))
    return parser


def run(command: Command, arguments: argparse.Namespace) -> int:
    """Run a command; its exit status. Errors are one line on standard error."""
    try:
        api = AdminApi(arguments.base_url, admin_key(arguments.admin_key_file))
        try:
            command(api, arguments)
        finally:
            api.close()
    except CommandError as error:
        print(f"fairlane: {error}", file=sys.stderr)
        return 1
    return 0


def _list_clients(api: AdminApi, arguments: argparse.Namespace) -> None:
    clients = api.pages("clients", search=arguments.search, group=arguments.group)
    _tell_all(arguments, list(clients), CLIENT_COLUMNS, "There are no such clients.")


def _add_client(api: AdminApi, arguments: argparse.Namespace) -> None:
    fields = ("name", "weight", "group", "priority_class")
    body = {name: getattr(arguments, name) for name in fields}
    body |= _limits(arguments)
    _tell(arguments, api.ask("POST", "/clients", json=body), CLIENT_COLUMNS)


def _show_client(api: AdminApi, arguments: argparse.Namespace) -> None:
    client = api.ask("GET", path_of("clients", arguments.name))
    keys = api.ask("GET", "/keys", params={"client": arguments.name})["keys"]
    if arguments.json:
        _print_json({**client, "keys": keys})
        return
    show([client], CLIENT_COLUMNS)
    print()
    show(keys, KEY_COLUMNS)


def _set_client(api: AdminApi, arguments: argparse.Namespace) -> None:
    body: dict[str, Any] = {}
    if arguments.weight is not None:
        body["weight"] = arguments.weight
    if arguments.group or arguments.no_group:
        body["group"] = arguments.group
    if arguments.priority_class or arguments.first_class:
        body["priority_class"] = arguments.priority_class
    if arguments.enable or arguments.disable:
        body["enabled"] = arguments.enable
    body |= _limits(arguments)
    if not body:
        raise CommandError("nothing to change: name --weight, --group, --enable or another option")
    answer = api.ask("PATCH", path_of("clients", arguments.name), json=body)
    _tell(arguments, answer, CLIENT_COLUMNS)


def _remove_client(api: AdminApi, arguments: argparse.Namespace) -> None:
    _tell(arguments, api.ask("DELETE", path_of("clients", arguments.name)), CLIENT_COLUMNS)


def _list_groups(api: AdminApi, arguments: argparse.Namespace) -> None:
    groups = list(api.pages("groups", search=arguments.search))
    _tell_all(arguments, groups, GROUP_COLUMNS, "There are no such groups.")


def _add_group(api: AdminApi, arguments: argparse.Namespace) -> None:
    body = {"name": arguments.name, "weight": arguments.weight} | _limits(arguments)
    _tell(arguments, api.ask("POST", "/groups", json=body), GROUP_COLUMNS)


def _set_group(api: AdminApi, arguments: argparse.Namespace) -> None:
    body = {} if arguments.weight is None else {"weight": arguments.weight}
    body |= _limits(arguments)
    if not body:
        raise CommandError("nothing to change: name --weight or --limits")
    path = path_of("groups", arguments.name)
    _tell(arguments, api.ask("PATCH", path, json=body), GROUP_COLUMNS)


def _limits(arguments: argparse.Namespace) -> dict[str, Any]:
    return {} if arguments.limits is None else {"limits": arguments.limits}


def _remove_group(api: AdminApi, arguments: argparse.Namespace) -> None:
    _tell(arguments, api.ask("DELETE", path_of("groups", arguments.name)), GROUP_COLUMNS)


def _list_keys(api: AdminApi, arguments: argparse.Namespace) -> None:
    keys = api.ask("GET", "/keys", params={"client": arguments.client})["keys"]
    none = "It has no key: `fairlane keys create` makes one."
    _tell_all(arguments, keys, KEY_COLUMNS, none)


def _create_key(api: AdminApi, arguments: argparse.Namespace) -> None:
    body = {
        "client": arguments.client,
        "label": arguments.label,
        "expires_in_s": arguments.expires,
    }
    _tell_key(arguments, api.ask("POST", "/keys", json=body))


def _rotate_key(api: AdminApi, arguments: argparse.Namespace) -> None:
    path = f"{path_of('keys', arguments.key)}/rotate"
    _tell_key(arguments, api.ask("POST", path, json={"overlap_s": arguments.overlap}))


def _revoke_key(api: AdminApi, arguments: argparse.Namespace) -> None:
    _tell(arguments, api.ask("POST", f"{path_of('keys', arguments.key)}/revoke"), KEY_COLUMNS)


def _audit(api: AdminApi, arguments: argparse.Namespace) -> None:
    events = api.ask("GET", "/audit", params={"limit": arguments.limit})["events"]
    _tell_all(arguments, events, EVENT_COLUMNS, "Nothing was changed yet.")


def _tell(arguments: argparse.Namespace, row: dict[str, Any], columns: tuple[str, ...]) -> None:
    if arguments.json:
        _print_json(row)
    else:
        show([row], columns)


def _tell_all(
    arguments: argparse.Namespace, rows: list[dict[str, Any]], columns: tuple[str, ...], none: str
) -> None:
    """none: what to say in place of an empty table."""
    if arguments.json:
        _print_json(rows)
    elif rows:
        show(rows, columns)
    else:
        print(none)


def _tell_key(arguments: argparse.Namespace, made: dict[str, Any]) -> None:
    """The key alone on standard output, so that a script can take it."""
    if arguments.json:
        _print_json(made)
        return
    print(made["key"])
    until = f"expires {made['expires_at']}" if made["expires_at"] else "does not expire"
    print(
        f"Key {made['id']} of {made['client']}; it {until}. It is shown this once: keep it now.",
        file=sys.stderr,
    )


def _print_json(content: Any) -> None:
    print(json.dumps(content, indent=2))
