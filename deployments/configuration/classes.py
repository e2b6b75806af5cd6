"""Priority classes in the configuration: `fairness.classes` says what they mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import Field

from deployments.configuration.problems import Problem
from deployments.configuration.strict import Strict
from fairness.classes import Classes, ServiceClass

DEFAULT_FLOOR = 0.05
NAME = r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,62}"


class ClassConfig(Strict):
    """One priority class."""

    name: str = Field(
        pattern=f"^{NAME}$",
        description="A [priority class](theory.md#priority-classes): letters, digits and `._@+-`.",
    )
    floor: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="The share of all service that it is owed while it waits, whatever the classes "
        f"above it ask; by default {DEFAULT_FLOOR} for all but the first, which has none; 0: it "
        "may starve.",
    )


def classes_of(configs: Sequence[ClassConfig]) -> Classes:
    """As the queue has them. Raises ValueError for what makes no sense together."""
    floors = [
        (DEFAULT_FLOOR if rank else 0.0) if config.floor is None else config.floor
        for rank, config in enumerate(configs)
    ]
    named = zip(configs, floors, strict=True)
    return Classes(tuple(ServiceClass(config.name, floor) for config, floor in named))


def unknown_classes(
    clients: Iterable[tuple[str, str | None]], classes: Sequence[str]
) -> list[Problem]:
    """What is wrong with clients, given as (name, its class)."""
    known = ", ".join(classes) or "there are none"
    return [
        Problem(
            ("clients", number, "priority_class"),
            f"{client} is in the priority class {name}, which is not under `classes` ({known})",
            f"add {{name: {name}}} there",
        )
        for number, (client, name) in enumerate(clients)
        if name is not None and name not in classes
    ]
