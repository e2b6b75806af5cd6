"""One case: bytes for a connection, and what may come back."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Case:
    """kind: what it tries, for the counts. parts: bytes to write, with a moment between two.

    method: of the (first) request, which says whether its answer has a body. owed: an answer must
    come or the connection end; without it the server may wait for more. broken: this is not HTTP as
    the standard has it, so the HTTP server may answer 400 in its own words. half_close: say at the
    end that no more will come.
    """

    kind: str
    parts: tuple[bytes, ...]
    method: str = "POST"
    owed: bool = True
    broken: bool = False
    half_close: bool = False


def request(
    method: str,
    target: str,
    headers: list[tuple[str, str | bytes]],
    body: bytes | None = None,
    *,
    length: bool = True,
) -> bytes:
    """HTTP/1.1 as bytes; nothing is checked. length: say how long the body is."""
    lines = [f"{method} {target} HTTP/1.1".encode("utf-8", "surrogatepass"), b"Host: fuzz"]
    for name, value in headers:
        raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
        lines.append(name.encode("utf-8") + b": " + raw)
    if body is not None and length:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + (body or b"")
