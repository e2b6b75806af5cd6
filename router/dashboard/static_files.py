"""The files of the pages, read once. They hold no data: anyone may have them."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@cache
def static_files() -> dict[str, tuple[bytes, str, str]]:
    """Path below `static/` -> content, media type, ETag; a third of a megabyte in all."""
    found: dict[str, tuple[bytes, str, str]] = {}

    def read(folder: Traversable, prefix: str) -> None:
        for item in folder.iterdir():
            if item.is_dir():
                read(item, f"{prefix}{item.name}/")
            elif (kind := item.name.rpartition(".")[2]) in TYPES:
                content = item.read_bytes()
                tag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
                found[prefix + item.name] = content, TYPES[kind], tag

    read(files("router.dashboard") / "static", "")
    return found


def static_file(request: Request, path: str) -> Response:
    """The answer with one of them: 304 if the browser has it, 404 if there is none."""
    if path not in static_files():
        return Response("there is no such page\n", 404, media_type="text/plain")
    content, media_type, tag = static_files()[path]
    headers = {"etag": tag, "cache-control": "no-cache", "content-type": media_type}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(content, headers=headers)
