"""Fetch the Python files of a vLLM release, without its gigabytes of compiled code.

A wheel of vLLM is 300 MB, of which its Python files are 4%. A wheel is a zip archive, whose
directory stands at its end, and package indexes serve parts of files. So: fetch the end, read there
where the Python files are, fetch those parts, and put all of it at its place in a sparse file of
the wheel's size, which any zip reader takes for the wheel as long as it asks for nothing else.

What comes is checked. Each wheel's RECORD holds the SHA-256 of every file in it, and ``RELEASES``
holds the SHA-256 of that RECORD: the code that runs is the code these tests were written against.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import IO, Any
from urllib.error import URLError
from urllib.parse import urljoin
from urllib.request import Request, urlopen

CACHE = Path(__file__).parents[2] / ".local"
RELEASES = {  # version: SHA-256 of the RECORD in its wheel for x86-64
    "0.28.0": "91d2edd6f8af9544a8c1cd4b7a23ed700cc75f748e9abb7ffaec2dd9f56402d0",
    "0.30.0": "98c60262010a2fe2759540bd49bd260712f1a2275eb5c4a55d67b2751abe5630",
    "0.31.0": "42b2205c6fa3ede3ad329ec24a4f0ce5358534c47ffc73c0d67d7e844c929d2d",
    "0.32.0": "7de1ca9fab186868f4794671b450d274a40739fd887f7e5a52bc5ca76aab0f85",
    "0.33.0": "a860951d44545b1b68c2d1484b9a03bbde52f6eae34850a6c22741c60ac386c4",
}
WHEEL = "vllm-{version}-cp38-abi3-manylinux_2_28_x86_64.whl"
RECORD = "vllm-{version}.dist-info/RECORD"
DIRECTORY_BYTES = 2 << 20  # the zip directory of 6,000 files has 0.7 MB
GAP_BYTES = 256 << 10  # cheaper to fetch than another request
TIMEOUT_S = 60


class CannotFetchError(Exception):
    """This release's files cannot be had here, for example because there is no network."""


def python_files(version: str) -> Path:
    """Return a folder with the Python files of package ``vllm``; fetch them if need be.

    Raises:
        CannotFetchError: says why not.
    """
    target = CACHE / f"vllm-{version}"
    if target.is_dir():
        return target
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".vllm-", dir=CACHE) as scratch:
        try:
            url = _wheel_url(version)
            with (Path(scratch) / "wheel").open("w+b") as wheel:
                _extract(wheel, url, version, Path(scratch) / "files")
        except (URLError, OSError, ValueError, zipfile.BadZipFile) as error:
            raise CannotFetchError(f"cannot fetch vLLM {version}: {error}") from error
        try:
            os.rename(Path(scratch) / "files", target)
        except OSError:
            if not target.is_dir():  # else: another process was faster
                raise
    return target


def _extract(wheel: IO[bytes], url: str, version: str, into: Path) -> None:
    """Fill ``wheel`` as far as needed and unpack its Python files."""
    _fill(wheel, url, f"-{DIRECTORY_BYTES}")
    with zipfile.ZipFile(wheel) as archive:
        record = RECORD.format(version=version)
        wanted = [
            member
            for member in archive.infolist()
            if member.filename.endswith(".py") or member.filename == record
        ]
        for start, end in _parts(archive, wanted):
            _fill(wheel, url, f"{start}-{end - 1}")
        content = archive.read(record)
        if (found := hashlib.sha256(content).hexdigest()) != RELEASES[version]:
            raise ValueError(f"its RECORD is not the one expected, but has SHA-256 {found}")
        hashes = {row[0]: row[1] for row in csv.reader(content.decode().splitlines())}
        for member in wanted:
            if member.filename != record:
                _unpack(archive, member, hashes[member.filename], into)


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, expected: str, into: Path) -> None:
    content = archive.read(member)
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    if expected != f"sha256={digest}":
        raise ValueError(f"{member.filename} is not what the wheel's RECORD says")
    path = into / member.filename
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _parts(
    archive: zipfile.ZipFile, wanted: Iterable[zipfile.ZipInfo]
) -> Iterator[tuple[int, int]]:
    """Return the parts of the archive that hold the members, near ones joined."""
    starts = sorted([member.header_offset for member in archive.infolist()] + [archive.start_dir])
    end_of = dict(pairwise(starts))
    begin = end = -1
    for start in sorted(member.header_offset for member in wanted):
        if begin < 0 or start - end > GAP_BYTES:
            if begin >= 0:
                yield begin, end
            begin = start
        end = end_of[start]
    yield begin, end


def _fill(wheel: IO[bytes], url: str, part: str) -> None:
    """Fetch a part and write it at its place."""
    with urlopen(Request(url, headers={"Range": f"bytes={part}"}), timeout=TIMEOUT_S) as answer:
        place = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
        if answer.status != 206 or place is None:
            raise ValueError("the package index does not serve parts of files")
        wheel.truncate(int(place[2]))
        wheel.seek(int(place[1]))
        shutil.copyfileobj(answer, wheel)
        wheel.flush()


def _wheel_url(version: str) -> str:
    page = f"{_index_url().rstrip('/')}/vllm/"
    request = Request(page, headers={"Accept": "application/vnd.pypi.simple.v1+json"})
    with urlopen(request, timeout=TIMEOUT_S) as answer:
        listing: dict[str, Any] = json.load(answer)
    name = WHEEL.format(version=version)
    for file in listing["files"]:
        if file["filename"] == name:
            return urljoin(page, file["url"])
    raise ValueError(f"the package index has no {name}")


def _index_url() -> str:
    """Return the index that pip uses here: its help tells the default that is in force."""
    run = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--help"],
        env=os.environ | {"COLUMNS": "2000"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"--index-url <url>.*?\(default\s+(\S+?)\)", run.stdout, re.DOTALL)
    if found is None:
        raise ValueError("pip does not tell which package index it uses")
    return found[1]
