"""Log lines of routers and replicas: JSON, or text with the same fields at its end.

A line that is written while a request is served says which one: `about` is asked for every line, in
the context in which it was written. Messages and fields hold no prompts and no keys; who writes a
log line anywhere keeps to that (a test searches all logs of a run for both).
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal

Format = Literal["text", "json"]
Fields = dict[str, Any]
About = Callable[[], Fields]


class LineFormatter(logging.Formatter):
    """One line a record: time (UTC), level, logger, message, what it is about; an exception's
    text."""

    def __init__(self, kind: Format, about: About) -> None:
        """about: fields of the request that is served where the line is written; {} for none."""
        super().__init__()
        self._json = kind == "json"
        self._about = about

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        fields = self._about() | getattr(record, "fields", {})
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        head = {
            "time": f"{at}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            head["exception"] = self.formatException(record.exc_info)
        if self._json:
            return json.dumps(head | fields, default=str)
        trace = head.pop("exception", None)
        told = [*head.values(), *(f"{name}={_plain(value)}" for name, value in fields.items())]
        return " ".join(told) + (f"\n{trace}" if trace else "")


def _plain(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if text.isprintable() and " " not in text else json.dumps(text)


def show_lines(loggers: Iterable[str], kind: Format, about: About, *, level: str = "INFO") -> None:
    """Have these loggers, and those below them, write to the process's own standard error: a file
    of Ray's. (What Serve puts in place of it keeps lines in memory, up to a thousand.) Once a
    process."""
    handler = logging.StreamHandler(sys.__stderr__)
    handler.setFormatter(LineFormatter(kind, about))
    for name in loggers:
        logger = logging.getLogger(name)
        if not any(isinstance(known.formatter, LineFormatter) for known in logger.handlers):
            logger.addHandler(handler)
            logger.setLevel(level)
            logger.propagate = False
