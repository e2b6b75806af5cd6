"""Clients and their groups in the configuration."""

from __future__ import annotations

import re

from pydantic import Field, field_validator

from deployments.configuration.strict import Strict
from fairness.groups import is_group
from router.clients import hash_key
from router.directory.records import GROUP_NAME
from router.level_limits import LevelLimits


class GroupConfig(Strict):
    """An organisation (`acme`), or a team of one (`acme/ml`)."""

    name: str = Field(
        pattern=f"^{GROUP_NAME}$",
        description="An organisation (`acme`) or a team of one (`acme/ml`): letters, digits and "
        "`._@+-`, at most one slash.",
    )
    weight: float = Field(
        default=1.0, gt=0, description="Its share next to its siblings (twice as much with 2)."
    )
    limits: LevelLimits = Field(
        default=LevelLimits(), description="[Limits](limits.md) of all its clients together."
    )


class ClientConfig(Strict):
    """One client: who is billed for service."""

    name: str = Field(
        min_length=1,
        max_length=128,
        description="Who is billed. More can be made while it runs: [clients](clients.md).",
    )
    weight: float = Field(
        default=1.0, gt=0, description="Its share next to others (twice as much with 2)."
    )
    group: str | None = Field(default=None, description="The one of `groups` that it is in.")
    limits: LevelLimits = Field(default=LevelLimits(), description="Its own [limits](limits.md).")
    priority_class: str | None = Field(
        default=None, description="The one of `classes` that it is in; by default the first."
    )
    keys: tuple[str, ...] = Field(
        default=(), description="Its API keys in the clear, for development."
    )
    key_hashes: tuple[str, ...] = Field(
        default=(), description="SHA-256 of its API keys in hex (`fairlane hash-key`)."
    )

    @field_validator("key_hashes")
    @classmethod
    def _are_hashes(cls, hashes: tuple[str, ...]) -> tuple[str, ...]:
        return checked_hashes(hashes)

    @field_validator("name")
    @classmethod
    def _is_no_group(cls, name: str) -> str:
        if is_group(name):
            raise ValueError("a client's name can't end in a slash: that is how groups are told")
        return name

    def hashes(self) -> list[str]:
        """Hashes of all its keys."""
        return [*self.key_hashes, *map(hash_key, self.keys)]


def checked_hashes(hashes: tuple[str, ...]) -> tuple[str, ...]:
    """`hashes`, as they are. Raises ValueError where one is no SHA-256 in hex."""
    for hashed in hashes:
        if not re.fullmatch(r"[0-9a-f]{64}", hashed):
            raise ValueError("a key hash is 64 hex digits; make one with `fairlane hash-key`")
    return hashes
