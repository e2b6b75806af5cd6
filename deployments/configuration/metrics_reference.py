"""The page of metrics, made of their declarations: `docs/metrics.md`.

`python -m deployments.configuration.metrics_reference` (`make docs`) writes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from deployments.config import CHECKOUT
from fairness.observe.call_meter import STORE_METRICS
from fairness.observe.metric import Metric
from replicas.metrics import REPLICA_METRICS
from router.metrics import ROUTER_METRICS
from router.pool_metrics import OBSERVER_METRICS

PAGE = CHECKOUT / "docs" / "metrics.md"
PREFIX = "ray_"  # Ray's, to every metric
SECTIONS = (
    ("Of the pool", "Exported by its elected observer alone.", OBSERVER_METRICS),
    ("Of each router", "Add them up over routers.", ROUTER_METRICS),
    ("Of each replica", "Add them up over replicas.", REPLICA_METRICS),
    ("Of the store, as routers and replicas see it", "`sender` says which.", STORE_METRICS),
)
BEGIN = "<!-- `make docs` writes these tables from the declarations of the metrics -->"
END = "<!-- the end of what it writes -->"


def all_metrics() -> tuple[Metric, ...]:
    """Every metric that Fairlane exports."""
    return tuple(metric for *_, metrics in SECTIONS for metric in metrics)


def tables() -> str:
    """Every metric: its name in Prometheus, kind, labels and meaning."""
    return "\n\n".join(
        f"## {title}\n\n{about}\n\n{_table(metrics)}" for title, about, metrics in SECTIONS
    )


def _table(metrics: Iterable[Metric]) -> str:
    rows = ["| metric | kind | labels | meaning |", "| --- | --- | --- | --- |"]
    for metric in metrics:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        meaning = metric.help.removesuffix(".").replace("|", "\\|")
        rows.append(f"| `{PREFIX}{metric.name}` | {metric.kind} | {labels} | {meaning} |")
    return "\n".join(rows)


def renewed(page: str) -> str:
    """The page with the tables anew. Raises ValueError where it has no place for them."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no place for the tables: {BEGIN} ... {END}")
    return f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"


def write(page: Path = PAGE) -> None:
    """The page, anew."""
    page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    write()
