"""The admin API over HTTP, with errors that say what to do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

KEY_VARIABLE = "FAIRLANE_ADMIN_KEY"
URL_VARIABLE = "FAIRLANE_BASE_URL"
DEFAULT_URL = "http://127.0.0.1:8000"
TIMEOUT_S = 30.0
PAGE = 1000


class CommandError(Exception):
    """The command can't be done; the message says why and what to do."""


def admin_key(file: Path | None) -> str:
    """The key in the file, or in the environment. Raises CommandError."""
    try:
        key = os.environ.get(KEY_VARIABLE, "") if file is None else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"the admin key can't be read: {error}") from None
    if not key.strip():
        where = f"{KEY_VARIABLE} is not set" if file is None else f"{file} is empty"
        raise CommandError(
            f"no admin key: {where}. Set {KEY_VARIABLE}, or name a file with --admin-key-file; "
            "admin keys are those under `admin_key_hashes` or `admin_keys` of the Serve config file"
        )
    return key.strip()


class AdminApi:
    """A connection to it. Each method raises CommandError."""

    def __init__(
        self, base_url: str, key: str, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._url = base_url.rstrip("/")
        if not self._url.startswith(("http://", "https://")):
            raise CommandError(f"{base_url!r} is no URL; write it as {DEFAULT_URL}")
        try:
            self._http = httpx.Client(
                base_url=f"{self._url}/admin",
                headers={"Authorization": f"Bearer {key}"},
                timeout=TIMEOUT_S,
                transport=transport,
            )
        except (httpx.InvalidURL, UnicodeEncodeError) as error:
            raise CommandError(f"the URL or the admin key can't be used: {error}") from None

    def close(self) -> None:
        """Close it."""
        self._http.close()

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """The answer's JSON."""
        try:
            answer = self._http.request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from None
        if answer.is_success:
            return answer.json()
        raise CommandError(self._why(answer))

    def pages(self, what: str, **query: Any) -> Iterator[dict[str, Any]]:
        """All items of a list, page by page."""
        after: str | None = ""
        while after is not None:
            page = self.ask("GET", f"/{what}", params={**query, "after": after, "limit": PAGE})
            yield from page[what]
            after = page["next"]

    def lines(self, path: str, **query: Any) -> Iterator[str]:
        """The lines of an answer that is text, as they come."""
        try:
            with self._http.stream("GET", path, params=query) as answer:
                if not answer.is_success:
                    answer.read()
                    raise CommandError(self._why(answer))
                yield from answer.iter_lines()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> CommandError:
        return CommandError(
            f"{self._url} can't be reached: {error}. Is Fairlane running there? Otherwise set "
            f"--base-url or {URL_VARIABLE}; where `admin.port` is configured, the admin API "
            "listens on that port only"
        )

    def _why(self, answer: httpx.Response) -> str:
        try:
            error = answer.json()["error"]
            message, code = str(error["message"]), error["code"]
        except (ValueError, KeyError, TypeError):
            return (
                f"{self._url} answered {answer.status_code}, and not as Fairlane does; "
                "check --base-url"
            )
        if answer.status_code == 401:
            return (
                f"{message}: {self._url} does not take this admin key; see which one "
                f"{KEY_VARIABLE} or --admin-key-file names. Keys of clients are none; admin keys "
                "are those under `admin_key_hashes` or `admin_keys` of the Serve config file"
            )
        if code == 404:  # not even the path is known there
            return f"{message}. Is the admin API on a port of its own there (`admin.port`)?"
        return message


def path_of(kind: str, name: str) -> str:
    """The path of one item."""
    return f"/{kind}/{quote(name, safe='/')}"
