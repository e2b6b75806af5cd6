"""What the `user_config` of the routers means: changes to the `args`, without a restart.

Routers import this, and so no vLLM with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from deployments.config import LiveConfig, changed
from deployments.configuration.classes import unknown_classes
from deployments.configuration.problems import UnsoundError
from router.app import Limits
from router.server import LiveSettings

ADDED = ("groups", "clients", "admin_key_hashes")  # what `live_files` may hold


def live_settings(
    args: dict[str, Any],
    user_config: dict[str, Any],
    files: Iterable[str] = (),
    classes: tuple[str, ...] = (),
) -> LiveSettings:
    """args: the live part (`AppConfig.live`). files: `AppConfig.live_files`. classes: names of the
    priority classes. Raises ValueError, which says what to mend."""
    given = changed(args, user_config)
    for file in files:
        given = _added(given, file)
    config = LiveConfig.model_validate(given)
    if found := unknown_classes(config.classes_of_clients(), classes):
        raise UnsoundError(*found)
    limits = config.router
    return LiveSettings(
        replace(config.configured(), classes=classes),
        config.admin_hashes(),
        Limits(limits.max_body_bytes, limits.max_wait_s, limits.body_timeout_s, limits.rules()),
        limits.queue.limits(),
    )


def _added(given: dict[str, Any], file: str) -> dict[str, Any]:
    """`given` and what the file adds to its lists. No message repeats what the file says."""
    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ValueError(f"live_files: {file} can't be read: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError):
        raise ValueError(f"live_files: {file} is not YAML") from None
    if not isinstance(content, dict) or not all(
        name in ADDED and isinstance(value, list) for name, value in content.items()
    ):
        raise ValueError(f"live_files: {file} may have the lists {', '.join(ADDED)}, and no more")
    return given | {name: [*given.get(name, ()), *value] for name, value in content.items()}
