"""Changed files are heard of, however they are replaced."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from router.file_watch import changes


async def test_a_file_is_heard_of_when_it_changes_comes_goes_or_is_swapped(tmp_path: Path) -> None:
    file = tmp_path / "clients.yaml"
    heard = changes([str(file)], every_s=0.001)
    await anext(heard)  # the first look

    file.write_text("a")
    await asyncio.wait_for(anext(heard), 60)
    file.write_text("ab")
    await asyncio.wait_for(anext(heard), 60)
    file.unlink()
    await asyncio.wait_for(anext(heard), 60)

    for folder in ("old", "new"):  # as Kubernetes does it: a link to a folder is swapped
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "clients.yaml").write_text("same size")
    link = tmp_path / "data"
    link.symlink_to("old")
    file.symlink_to("data/clients.yaml")
    await asyncio.wait_for(anext(heard), 60)
    (tmp_path / "next").symlink_to("new")
    os.replace(tmp_path / "next", link)
    await asyncio.wait_for(anext(heard), 60)


async def test_nothing_is_said_while_nothing_changes(tmp_path: Path) -> None:
    heard = changes([str(tmp_path / "none")], every_s=0.001)
    await anext(heard)
    waiting = asyncio.ensure_future(anext(heard))
    done, _ = await asyncio.wait({waiting}, timeout=0.1)
    waiting.cancel()
    assert not done
