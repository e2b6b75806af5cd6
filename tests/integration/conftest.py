"""Real servers for the integration tests: Valkey from the wheel, Redis from Debian.

`server_url` runs a test once on each, on an empty database; `store` and `pool` once more in memory.
Both servers start once per session and only when a test asks for them.
"""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import redis

from deployments.embedded_store import EmbeddedValkey
from fairness.store.contract import QueueSettings
from tests.integration.servers import redis_binary
from tests.integration.stores import Pool, opened


@pytest.fixture(scope="session")
def valkey_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Valkey server (the newest that we support)."""
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server.url


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Redis server as Debian ships it; skips where it is not installed."""
    with EmbeddedValkey(tmp_path_factory.mktemp("redis"), binary=redis_binary()) as server:
        yield server.url


@pytest.fixture(params=["valkey", "redis"])
def server_url(request: pytest.FixtureRequest) -> str:
    """URL of a server with an empty database; the test runs once on Valkey and once on Redis."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture(params=["memory", "valkey", "redis"])
def store(request: pytest.FixtureRequest) -> str | None:
    """URL of an empty database; None for the store in memory."""
    if request.param == "memory":
        return None
    url: str = request.getfixturevalue(f"{request.param}_url")
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest_asyncio.fixture
async def pool(store: str | None) -> AsyncIterator[Pool]:
    async with opened(store, QueueSettings()) as pool:
        yield pool
