"""Watching in the configuration: usage, metrics, dashboard, explanations, traces, logs."""

from __future__ import annotations

import os
from typing import Literal

from pydantic import Field

from deployments.configuration.strict import Strict
from router.watch import TracingSettings


class UsageConfig(Strict):
    """What is kept of what clients use."""

    retention_days: int = Field(
        default=400,
        ge=1,
        le=3660,
        description="Days for which the [usage](usage.md) of clients is kept.",
    )


class MetricsConfig(Strict):
    """What is exported of single clients."""

    top_clients: int = Field(
        default=20,
        ge=0,
        le=200,
        description="Clients with [metrics](metrics.md) of their own: those that received most of "
        "late. 0: no client's name is in any metric.",
    )


class DashboardConfig(Strict):
    """The pages at `/dashboard`."""

    enabled: bool = Field(
        default=True,
        description="Whether there is a [dashboard](dashboard.md), where the admin API is: at the "
        "ingress, or on `admin.port` only.",
    )
    session_hours: float = Field(
        default=12,
        gt=0,
        le=24 * 30,
        description="Hours for which one stays logged in to the dashboard.",
    )


class ExplainConfig(Strict):
    """Which requests can be explained afterwards."""

    keep: int = Field(
        default=1000,
        ge=0,
        le=100_000,
        description="Requests that each router remembers, to [explain](explain.md) them; 0 for "
        "none.",
    )
    per_second: int = Field(
        default=100,
        ge=1,
        le=10_000,
        description="New ones of them a second and router, of one client at most a quarter of it.",
    )


class TracingConfig(Strict):
    """Traces by OpenTelemetry."""

    endpoint: str | None = Field(
        default=None,
        pattern="^https?://",
        description="Where [traces](tracing.md) go, by OTLP over HTTP, such as "
        "`http://collector:4318/v1/traces`; without one, what OTEL_EXPORTER_OTLP_TRACES_ENDPOINT "
        "or OTEL_EXPORTER_OTLP_ENDPOINT say where the application is built, else nowhere.",
    )
    sample: float = Field(
        default=0.01, ge=0, le=1, description="How many of the requests are traced (0 to 1)."
    )
    trust_incoming: bool = Field(
        default=False,
        description="Go on with the traces of clients (`traceparent`), and trace what they say is "
        "to be; only where all clients may do so.",
    )
    engine: bool = Field(default=True, description="Have vLLM add its own spans.")

    def resolved(self) -> str | None:
        """The endpoint to use."""
        environment = os.environ
        if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return None
        base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        return (
            self.endpoint
            or environment.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
            or (base and f"{base.rstrip('/')}/v1/traces")
            or None
        )

    def settings(self) -> TracingSettings | None:
        """What routers are given."""
        endpoint = self.resolved()
        if endpoint is None:
            return None
        return TracingSettings(endpoint, self.sample, self.trust_incoming)


class LoggingConfig(Strict):
    """Log lines of routers and replicas; never a prompt or a key."""

    format: Literal["text", "json"] = Field(
        default="text", description="Of every [log line](tracing.md#logs)."
    )
    access: bool = Field(
        default=False,
        description="A line for each request when all is known of it: who, how it ended, waits, "
        "tokens.",
    )
