"""A workload from any CSV file: one line a request, with when, who, and how long.

The header names the columns, in any order: ``arrival_s`` (seconds since the start), ``client``,
``input_tokens``, ``output_tokens``. Other columns are left alone. Lines may come in any order; a
file whose name ends in ``.gz`` is unpacked.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path

from loadtests.workloads.workload import Request, Workload

COLUMNS = ("arrival_s", "client", "input_tokens", "output_tokens")


class BadWorkloadFile(ValueError):
    """A file is not a workload; the message names the file, the line and the column."""


def read_csv(source: Path | Traversable, *, name: str | None = None) -> Workload:
    """Return the workload in a file. name: of the workload; by default the file's.

    Raises:
        BadWorkloadFile: the header or a line is not as it should be, or there is no request.
        OSError: the file can't be read.
    """
    data = source.read_bytes()
    try:
        if source.name.endswith(".gz"):
            data = gzip.decompress(data)
        text = data.decode("utf-8-sig")
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError) as error:
        raise BadWorkloadFile(f"{source.name} is not text in UTF-8: {error}") from error
    rows = csv.DictReader(io.StringIO(text, newline=""))
    _check_header(source.name, rows.fieldnames)
    requests = [_request(f"{source.name}, line {rows.line_num}", row) for row in rows]
    if not requests:
        raise BadWorkloadFile(f"{source.name} has a header and no requests")
    default = source.name.removesuffix(".gz").removesuffix(".csv")
    return Workload(name or default, tuple(sorted(requests, key=lambda request: request.at)))


def _check_header(name: str, header: object) -> None:
    found = list(header) if isinstance(header, list) else []
    missing = [column for column in COLUMNS if column not in found]
    if missing:
        raise BadWorkloadFile(
            f"{name}, line 1: the header must name {', '.join(COLUMNS)}; "
            f"{', '.join(missing)} missing in {','.join(map(str, found)) or 'an empty line'}"
        )


def _request(where: str, row: Mapping[str, str | None]) -> Request:
    client = (row["client"] or "").strip()
    if not client:
        raise BadWorkloadFile(f"{where}, column client: it is empty")
    at = _number(where, row, "arrival_s")
    if not (math.isfinite(at) and at >= 0):
        raise BadWorkloadFile(f"{where}, column arrival_s: {at} is not a time from 0 on")
    return Request(at, client, _tokens(where, row, "input_tokens"), _tokens(where, row, COLUMNS[3]))


def _number(where: str, row: Mapping[str, str | None], column: str) -> float:
    value = row[column]
    try:
        return float(value or "")
    except ValueError:
        raise BadWorkloadFile(f"{where}, column {column}: {value!r} is not a number") from None


def _tokens(where: str, row: Mapping[str, str | None], column: str) -> int:
    value = row[column]
    try:
        tokens = int(value or "")
    except ValueError:
        tokens = 0
    if tokens < 1:
        raise BadWorkloadFile(f"{where}, column {column}: {value!r} is not a whole number from 1")
    return tokens
