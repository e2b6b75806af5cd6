"""What a simulated Fairlane is set up with."""

from __future__ import annotations

from dataclasses import dataclass, field

from deployments.config import AppConfig, PoolConfig, PredictionConfig
from fairness.cost import ServiceCost
from fairness.prediction import Prediction


@dataclass(frozen=True, slots=True)
class FairlaneSettings:
    """The product's own settings, by their own defaults, and the network it runs on.

    routers: ingress processes; a request that does not say which it reaches goes to them in turn.
    lookahead, slots: of `replicas.lease_book`. report_interval_s, charge_interval_s: between two
    calls of a replica, and between two with charges (`replicas.queue_link`). prediction: charged at
    the grant. burst: see `QueueSettings`. policy: in which order grants are made, and each batch.
    delay_s: one way of any message (store, grants, requests to replicas). bytes_per_token: of a
    request's body; what the queue makes of it is its own business.
    """

    routers: int = 2
    lookahead: int = PoolConfig.model_fields["lookahead"].default
    slots: int = 256
    report_interval_s: float = 0.01
    charge_interval_s: float = PoolConfig.model_fields["charge_interval_s"].default
    prediction: Prediction = field(
        default_factory=lambda: Prediction(**PredictionConfig().model_dump())
    )
    burst: float = AppConfig.model_fields["burst"].default
    policy: str = "vtc"
    cost: ServiceCost = field(default_factory=ServiceCost)
    delay_s: float = 0.001
    bytes_per_token: int = 4


EXACT = FairlaneSettings(delay_s=0.0, report_interval_s=0.0, charge_interval_s=0.0)
"""Messages that take no time and charges after every stretch of steps: how good it could be."""
