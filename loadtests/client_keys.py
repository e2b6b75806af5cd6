"""Which API keys the clients of a workload use, and a configuration of Fairlane that knows them.

Keys come from a file, from a template, or are not needed. A file is CSV with the columns
``client,key``, a line for each key, or JSON, ``{"client": "key"}`` or ``{"client": ["key", ...]}``;
a client's keys are numbered in the order they stand there. Keys are never shown: not in ``repr``,
not in errors, not in reports.
"""

from __future__ import annotations

import copy
import csv
import json
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtests.workloads.workload import Workload


class KeysError(ValueError):
    """Keys that are unreadable or don't suffice; the message says what to do."""


@dataclass(frozen=True, slots=True)
class ClientKeys:
    """The keys of each client. A client without any sends none."""

    _keys: Mapping[str, tuple[str, ...]] = field(repr=False)

    @property
    def clients(self) -> tuple[str, ...]:
        """Names of the clients that have keys, in the order they came."""
        return tuple(self._keys)

    def key(self, client: str, number: int = 0) -> str | None:
        """Return a client's key of this number, beginning again after the last; None without."""
        keys = self._keys.get(client, ())
        return keys[number % len(keys)] if keys else None

    def of(self, client: str) -> tuple[str, ...]:
        """Return all keys of a client."""
        return self._keys.get(client, ())

    def require(self, workload: Workload) -> None:
        """Raise KeysError unless each client of the workload has as many keys as it uses."""
        short = [
            f"{client} (uses {used}, has {len(self.of(client))})"
            for client, used in keys_used(workload).items()
            if len(self.of(client)) < used
        ]
        if short:
            shown = ", ".join(short[:5]) + (", ..." if len(short) > 5 else "")
            raise KeysError(f"{len(short)} clients of {workload.name} lack keys: {shown}")


NO_KEYS = ClientKeys({})


def keys_used(workload: Workload) -> dict[str, int]:
    """Return how many keys each client of a workload uses, in order of names."""
    used = dict.fromkeys(workload.clients, 1)
    for request in workload.requests:
        used[request.client] = max(used[request.client], request.key + 1)
    return used


def read_keys(path: Path) -> ClientKeys:
    """Read a file of keys. Raises KeysError when it is not one, OSError when it is not there."""
    text = path.read_text(encoding="utf-8")
    try:
        rows = list(_json_rows(text) if path.suffix == ".json" else _csv_rows(text))
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error):
        # The reason is left out: it may quote a line of the file.
        raise KeysError(
            f"{path} is no file of keys: CSV with the columns client,key, "
            'or JSON like {"client": "key"}'
        ) from None
    keys: dict[str, tuple[str, ...]] = {}
    for client, key in rows:
        keys[client] = (*keys.get(client, ()), key)
    return ClientKeys(keys)


def _csv_rows(text: str) -> Iterable[tuple[str, str]]:
    for row in csv.DictReader(text.splitlines()):
        yield row["client"].strip(), _whole(row["key"])


def _json_rows(text: str) -> Iterable[tuple[str, str]]:
    for client, keys in json.loads(text).items():
        for key in [keys] if isinstance(keys, str) else keys:
            yield client, _whole(key)


def _whole(key: str) -> str:
    key = key.strip()
    if not key or not key.isprintable():
        raise ValueError
    return key


def template_keys(workload: Workload, template: str) -> ClientKeys:
    """Return keys by a pattern, in which ``{client}`` and ``{number}`` are replaced."""
    return ClientKeys(
        {
            client: tuple(
                template.replace("{client}", client).replace("{number}", str(number))
                for number in range(used)
            )
            for client, used in keys_used(workload).items()
        }
    )


def lent_keys(workload: Workload, owners: Mapping[str, tuple[str, ...]]) -> ClientKeys:
    """Let the clients of a workload use the keys of a server's known clients, one each.

    For small workloads on a server with development keys, of clients with weight 1. A client
    whose name the server knows has that one's keys; the others take what is left in order.
    Raises KeysError when there are too few, or the workload has weights.
    """
    used = keys_used(workload)
    if set(workload.weights.values()) - {1.0}:
        raise KeysError(
            f"{workload.name} has weights, so the server must know its clients: "
            "name a file with --keys (--generate-config makes one)"
        )
    lent = {client: owners[client] for client in used if client in owners}
    left = iter([keys for owner, keys in owners.items() if owner not in lent])
    for client in used:
        if client not in lent:
            keys = next(left, None)
            if keys is None:
                raise KeysError(
                    f"{workload.name} has {len(used)} clients, more than have development keys: "
                    "name a file with --keys (--generate-config makes one)"
                )
            lent[client] = keys
    made = ClientKeys(lent)
    made.require(workload)
    return made


def new_keys(workload: Workload) -> ClientKeys:
    """Return new random keys for every client of a workload."""
    return ClientKeys(
        {
            client: tuple(f"sk-{secrets.token_urlsafe(24)}" for _ in range(used))
            for client, used in keys_used(workload).items()
        }
    )


def write_keys(path: Path, keys: ClientKeys, clients: Iterable[str]) -> None:
    """Write a CSV file that only its owner can read. Raises FileExistsError, OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("client", "key"))
        rows.writerows((client, key) for client in clients for key in keys.of(client))


def with_clients(content: Mapping[str, Any], workload: Workload, keys: ClientKeys) -> Any:
    """Return a Serve config's content in which Fairlane knows the clients of a workload.

    They get the workload's weights and the hashes of their keys; a client that the configuration
    already has under that name gives way. Where the routers' `user_config` has clients, those of
    `args` do not hold, so they join it there: `serve deploy` then takes them up without a restart.
    Raises KeysError when it has no application.
    """
    # Here, so that who only reads keys (the locustfile) needs nothing but the standard library.
    from router.clients import hash_key

    made = copy.deepcopy(dict(content))
    try:
        holder = _client_holder(made["applications"][0])
    except (KeyError, IndexError, TypeError, AttributeError):
        raise KeysError("the configuration has no application of Fairlane") from None
    ours = [
        {
            "name": client,
            **({"weight": weight} if (weight := workload.weights.get(client, 1.0)) != 1.0 else {}),
            "key_hashes": [hash_key(key) for key in keys.of(client)],
        }
        for client in workload.clients
    ]
    others = [c for c in holder.get("clients") or () if c["name"] not in workload.clients]
    holder["clients"] = [*others, *ours]
    return made


def _client_holder(application: dict[str, Any]) -> dict[str, Any]:
    """Where an application's clients stand. Raises KeyError without `args`."""
    for deployment in application.get("deployments") or ():
        live: dict[str, Any] = deployment.get("user_config") or {}
        if deployment.get("name") == "Router" and live.get("clients") is not None:
            return live
    arguments: dict[str, Any] = application["args"]
    return arguments
