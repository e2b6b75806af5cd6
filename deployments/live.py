"""What the `user_config` of the routers means: changes to the `args`, without a restart.

Routers import this, and so no vLLM with it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from deployments.config import LiveConfig, changed
from deployments.configuration.classes import unknown_classes
from deployments.configuration.problems import UnsoundError
from router.app import Limits
from router.server import LiveSettings


def live_settings(
    args: dict[str, Any], user_config: dict[str, Any], classes: tuple[str, ...] = ()
) -> LiveSettings:
    """args: the live part (`AppConfig.live`). classes: names of the priority classes. Raises
    ValidationError, which says what to mend."""
    config = LiveConfig.model_validate(changed(args, user_config))
    if found := unknown_classes(config.classes_of_clients(), classes):
        raise UnsoundError(*found)
    limits = config.router
    return LiveSettings(
        replace(config.configured(), classes=classes),
        config.admin_hashes(),
        Limits(limits.max_body_bytes, limits.max_wait_s, limits.body_timeout_s, limits.rules()),
        limits.queue.limits(),
    )
