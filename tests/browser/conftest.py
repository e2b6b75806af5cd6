"""Chromium and axe-core, or a clear word why not."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import pytest_asyncio

from deployments.embedded_store import EmbeddedValkey
from router.dashboard import headers
from tests.browser.chrome import Page, binary, chromium

AXE = Path(headers.__file__).parent / "web" / "node_modules" / "axe-core" / "axe.min.js"


def lacks(what: str) -> NoReturn:
    """Skip; fail with FAIRLANE_TESTS_LACK_NOTHING, where no tool may be missing."""
    if os.environ.get("FAIRLANE_TESTS_LACK_NOTHING"):
        pytest.fail(what)
    pytest.skip(what)


@pytest.fixture
def store_url(tmp_path: Path) -> Iterator[str]:
    """URL of a Valkey server with nothing in it."""
    with EmbeddedValkey(tmp_path) as server:
        yield server.url


@pytest_asyncio.fixture
async def page() -> AsyncIterator[Page]:
    """A tab of a headless Chromium."""
    if binary() is None:
        lacks("no Chromium here; `make chromium` installs it (apt-get, as root)")
    async with chromium() as page:
        yield page


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    if not AXE.is_file():
        lacks("no axe-core here; `make chromium` installs it (npm)")
    return AXE.read_text(encoding="utf-8")
