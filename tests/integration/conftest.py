"""Real servers for the integration tests: Valkey from the wheel, Redis from Debian.

`server_url` runs a test once on each, on an empty database. Both servers start once per session
and only when a test asks for them.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from deployments.embedded_store import EmbeddedValkey


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Valkey server (the newest that we support)."""
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Redis server as Debian ships it; skips where it is not installed."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server on the PATH: apt-get install redis-server")
    with EmbeddedValkey(tmp_path_factory.mktemp("redis"), binary=Path(binary)) as server:
        yield server.url


@pytest.fixture(params=["valkey", "redis"])
def server_url(request: pytest.FixtureRequest) -> str:
    """URL of a server with an empty database; the test runs once on Valkey and once on Redis."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url
