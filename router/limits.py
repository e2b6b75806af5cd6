"""What one router takes on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """What may wait in one router, so that no client can fill its memory."""

    requests_per_client: int = 2_000
    requests: int = 20_000
    bytes_per_client: int = 256 * 2**20
    bytes: int = 1024 * 2**20
