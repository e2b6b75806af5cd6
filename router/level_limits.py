"""Limits as people write them: in the configuration and to the admin API."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from fairness.limits import Limits

MOST = 10**12


class LevelLimits(BaseModel):
    """What a client, or all clients of a group together, may do with each model."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    requests_per_minute: int | None = Field(
        default=None, ge=1, le=MOST, description="Requests a minute, then 429."
    )
    tokens_per_minute: int | None = Field(
        default=None, ge=1, le=MOST, description="Tokens a minute, input and output, then 429."
    )
    concurrency: int | None = Field(
        default=None, ge=1, le=MOST, description="Requests in flight, waiting or running, then 429."
    )
    queued_requests: int | None = Field(
        default=None, ge=1, le=MOST, description="Requests that wait, on all routers, then 429."
    )
    queued_bytes: int | None = Field(
        default=None, ge=1, le=MOST, description="Bytes of requests that wait, then 429."
    )
    max_wait_s: float | None = Field(
        default=None,
        gt=0,
        le=MOST,
        description="Seconds to wait for one's turn, if less than `router.max_wait_s`.",
    )

    def limits(self) -> Limits:
        """What routers are given."""
        return Limits(**self.model_dump())
