"""The builder is what Serve takes it for: typed, so that a config file is checked."""

from __future__ import annotations

import inspect

from deployments.app import build
from deployments.config import AppConfig


def test_serve_sees_the_type_of_the_configuration() -> None:
    (parameter,) = inspect.signature(build).parameters.values()
    assert parameter.annotation is AppConfig
