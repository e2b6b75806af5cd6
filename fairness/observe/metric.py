"""What a metric is, declared once: name, unit, labels, help. Who exports it is not said here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["counter", "gauge", "histogram"]

# Seconds that somebody waits: from a quick first token to the longest wait allowed.
WAITS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
# Seconds between two tokens of a stream.
STEPS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)


NOTHING = 1e-9


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. help ends in a full stop; buckets: of a histogram, upper bounds in its unit."""

    kind: Kind
    name: str
    help: str
    labels: tuple[str, ...] = ("pool",)
    buckets: tuple[float, ...] = ()

    def made(self, backend: Any, tags: Mapping[str, str] | None = None) -> Any:
        """The metric in a module like `ray.util.metrics`, with some labels fixed."""
        options: dict[str, Any] = {"tag_keys": self.labels}
        if self.kind == "histogram":
            options["boundaries"] = list(self.buckets)
        metric = getattr(backend, self.kind.capitalize())(self.name, self.help, **options)
        if tags:
            metric.set_default_tags(dict(tags))
        return metric

    def begin(self, made: Any, *tags: Mapping[str, str]) -> None:
        """Have a counter there from the beginning, so that rates see its first event. (Ray's
        counters take no 0.)"""
        for labels in tags or ({},):
            made.inc(NOTHING, dict(labels))
