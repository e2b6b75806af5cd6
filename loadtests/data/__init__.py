"""Data of others that experiments need; README.md says where it comes from and its licence."""

from __future__ import annotations

from importlib.resources import files
from importlib.resources.abc import Traversable


def data_file(name: str) -> Traversable:
    """Return a file of this folder, wherever the package is installed."""
    return files(__name__) / name
