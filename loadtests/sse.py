"""Counting server-sent events without reading them.

A load driver that parses the JSON of every chunk measures itself. Whether a stream has ended and
how many tokens it carried stands in its last events; for everything before it is enough to know
how many events came and when. So each network read is searched once for ``data:`` at the start
of a line (JSON strings cannot hold a raw newline, so nothing inside an event looks like that) and
the last few kilobytes are kept for one look at the end.

A line ends with LF or CRLF. The bare CR that the standard also allows is not recognised; no
OpenAI-style server sends it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

_MARK = b"\ndata:"
_KEEP = 8192


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """What the last events of an OpenAI-style stream say.

    ``complete`` is true when ``[DONE]`` came. ``input_tokens`` and ``output_tokens`` are the
    usage the server stated, None without a usage event. ``error`` is the message of an error
    event, None without one; ``error_type`` its type, None where it is not shaped as OpenAI's.
    """

    complete: bool
    input_tokens: int | None
    output_tokens: int | None
    error: str | None
    error_type: str | None = None


class EventCounter:
    """Count the ``data:`` events of one stream, fed in pieces of any size.

    ``feed`` costs one search and one copy of the kept tail, whatever the events contain.
    """

    __slots__ = ("_tail", "events")

    def __init__(self) -> None:
        # The stream's first line may be a data line: pretend a line ended just before.
        self._tail = b"\n"
        self.events = 0

    def feed(self, data: bytes) -> int:
        """Take the next bytes of the stream; return how many events began in them."""
        # A mark of six bytes cut in two shows up in the last five bytes seen plus the new ones,
        # and no mark fits in five bytes alone, so none is counted twice.
        seen = self._tail[-(len(_MARK) - 1) :] + data
        count = seen.count(_MARK)
        self.events += count
        self._tail = (self._tail + data)[-_KEEP:]
        return count

    def end(self) -> StreamEnd:
        """Read the last events. Call once, when the stream has ended."""
        complete = False
        usage: dict[str, Any] = {}
        error: str | None = None
        error_type: str | None = None
        for line in self._tail.split(b"\n"):
            if not line.startswith(b"data:"):
                continue
            payload = line[len(b"data:") :].strip()
            if payload == b"[DONE]":
                complete = True
                continue
            event = _json_object(payload)
            if event.get("error"):
                error, error_type = _message(event["error"]), openai_error_type(event)
            if isinstance(event.get("usage"), dict):
                usage = event["usage"]
        return StreamEnd(
            complete=complete,
            input_tokens=_count(usage.get("prompt_tokens")),
            output_tokens=_count(usage.get("completion_tokens")),
            error=error,
            error_type=error_type,
        )


def openai_error_type(answer: Any) -> str | None:
    """Return the type of an error shaped as OpenAI's clients expect it, None for anything else.

    That shape is ``{"error": {"message": text, "type": text, ...}}``.
    """
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("message"), str):
        return None
    return error["type"] if isinstance(error.get("type"), str) else None


def _json_object(payload: bytes) -> dict[str, Any]:
    """Parse an event; one that is no whole JSON object is empty: the stream was cut inside it."""
    try:
        event = json.loads(payload)
    except ValueError:
        return {}
    return event if isinstance(event, dict) else {}


def _message(error: Any) -> str:
    if isinstance(error, dict) and isinstance(error.get("message"), str):
        return str(error["message"])
    return str(error)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None
