"""What the `user_config` of the routers means: changes to the `args`, without a restart.

Routers import this, and so no vLLM with it.
"""

from __future__ import annotations

from typing import Any

from deployments.config import LiveConfig, changed
from router.app import Limits
from router.server import LiveSettings


def live_settings(args: dict[str, Any], user_config: dict[str, Any]) -> LiveSettings:
    """args: the live part (`AppConfig.live`). Raises ValidationError, which says what to mend."""
    config = LiveConfig.model_validate(changed(args, user_config))
    limits = config.router
    return LiveSettings(
        config.configured(),
        config.admin_hashes(),
        Limits(limits.max_body_bytes, limits.max_wait_s, limits.body_timeout_s, limits.rules()),
        limits.queue.limits(),
    )
