"""Connections that break HTTP itself: contradicting lengths, lying chunks, slow and cut ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from random import Random

from loadtests.fuzz.bodies import SOUND
from loadtests.fuzz.case import Case, request
from loadtests.fuzz.http_cases import JSON, Headers, bearer

PATH = "/v1/chat/completions"
BODY = json.dumps(SOUND[PATH][0]).encode()
CHUNKED = ("Transfer-Encoding", "chunked")


def wire_case(random: Random, key: str) -> Case:
    """One of all that this module knows."""
    return random.choice(KINDS)(random, bearer(key) + JSON)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _both_lengths(random: Random, headers: Headers) -> Case:
    chunks = _chunk(BODY) + b"0\r\n\r\n"
    both = [CHUNKED, ("Content-Length", str(random.choice([0, 5, len(BODY), len(chunks), 10**9])))]
    random.shuffle(both)
    raw = request("POST", PATH, [*headers, *both], chunks, length=False)
    return Case("both lengths", (raw,), broken=True)


def _two_lengths(random: Random, headers: Headers) -> Case:
    two: Headers = [("Content-Length", str(len(BODY))), ("Content-Length", random.choice("05"))]
    raw = request("POST", PATH, headers + two, BODY, length=False)
    return Case("two lengths", (raw,), broken=True)


def _chunks(random: Random, headers: Headers) -> Case:
    """Sound chunks of any size, whose writes fall anywhere."""
    data, cut = BODY, random.randint(1, len(BODY) - 1)
    body = _chunk(data[:cut]) + _chunk(data[cut:]) + b"0\r\n\r\n"
    raw = request("POST", PATH, [*headers, CHUNKED], body, length=False)
    at = random.randint(1, len(raw) - 1)
    return Case("chunks", (raw[:at], raw[at:]))


def _broken_chunks(random: Random, headers: Headers) -> Case:
    bad = (
        *(b"zz\r\nabc\r\n", b"-5\r\nabc\r\n", b"ffffffffffffffffff\r\nabc\r\n", b"3\nabc\n0\n\n"),
        *(
            b"3\r\nabcd\r\n0\r\n\r\n",
            b"\r\n",
            b"3;" + b"x" * 9000 + b"\r\nabc\r\n",
            b"0\r\nx\r\n\r\n",
        ),
    )
    raw = request("POST", PATH, [*headers, CHUNKED], random.choice(bad), length=False)
    return Case("broken chunks", (raw,), broken=True, half_close=True)


def _encodings(random: Random, headers: Headers) -> Case:
    value = random.choice(["gzip", "chunked, gzip", "identity", "xchunked", "chunked\x0b", ""])
    raw = request("POST", PATH, [*headers, ("Transfer-Encoding", value)], BODY)
    return Case("encodings", (raw,), broken=True, half_close=True)


def _cut_body(random: Random, headers: Headers) -> Case:
    """Less than was said, and then nothing, or the end."""
    raw = request("POST", PATH, headers, BODY)
    cut = random.randint(len(raw) - len(BODY), len(raw) - 1)
    return Case("cut body", (raw[:cut],), half_close=random.random() < 0.8)


def _cut_headers(random: Random, headers: Headers) -> Case:
    raw = request("POST", PATH, headers, BODY)
    cut = random.randint(1, len(raw) - len(BODY) - 1)
    return Case("cut headers", (raw[:cut],), owed=False, broken=True)


def _slowly(random: Random, headers: Headers) -> Case:
    raw = request("POST", PATH, headers, BODY)
    cuts = [0, *sorted(random.sample(range(1, len(raw)), 6)), len(raw)]
    return Case("slowly", tuple(raw[a:b] for a, b in pairwise(cuts)))


def _giant_headers(random: Random, headers: Headers) -> Case:
    size = random.choice([10_000, 70_000, 500_000])
    more: Headers = [("X-Big", "v" * size)]
    if random.random() < 0.5:
        more = [(f"X-{number}", "v") for number in range(size // 10)]
    return Case("giant headers", (request("POST", PATH, headers + more, BODY),), broken=True)


def _pipelined(random: Random, headers: Headers) -> Case:
    one = request("POST", PATH, headers, BODY)
    other = random.choice([request("GET", "/v1/models", headers), b"garbage\r\n\r\n", one[:50]])
    return Case("pipelined", (one + one + other,), broken=True)


def _versions(random: Random, headers: Headers) -> Case:
    version = random.choice([b"1.0", b"0.9", b"2.0", b"3", b"1.1.1", b"9.9", b"x", b""])
    raw = request("POST", PATH, headers, BODY).replace(b"HTTP/1.1", b"HTTP/" + version, 1)
    return Case("versions", (raw,), broken=True, half_close=True)


def _lines(random: Random, headers: Headers) -> Case:
    bad = (
        *(b"GET\r\n\r\n", b"GET /\r\n\r\n", b"GET  / HTTP/1.1\r\n\r\n", b"\r\n\r\n\r\n", b"\n"),
        *(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", b"GET / HTTP/1.1\r\n folded: x\r\n\r\n"),
        *(
            b"GET / HTTP/1.1\nHost: x\n\n",
            b"GET /\x00 HTTP/1.1\r\n\r\n",
            b"G\xffT / HTTP/1.1\r\n\r\n",
        ),
        *(b"GET / HTTP/1.1\r\n: empty\r\n\r\n", b"GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n"),
        *(b"GET /\xe9\xff HTTP/1.1\r\n\r\n", b"GET /\xe9\r\n\r\n"),
    )
    return Case("lines", (random.choice(bad),), "GET", owed=False, broken=True, half_close=True)


def _garbage(random: Random, headers: Headers) -> Case:
    data = random.randbytes(random.choice([1, 20, 3000]))
    begin = random.choice([b"", b"\x16\x03\x01", b"GET ", b"POST /v1/models HTTP/1.1\r\n"])
    return Case("garbage", (begin + data,), "GET", owed=False, broken=True, half_close=True)


def _leaves(random: Random, headers: Headers) -> Case:
    """Asks, and is gone before the answer."""
    raw = request("POST", PATH, headers, BODY)
    return Case("leaves", (raw,), owed=False)


KINDS: tuple[Callable[[Random, Headers], Case], ...] = (
    *(_both_lengths, _two_lengths, _chunks, _broken_chunks, _encodings, _cut_body, _cut_headers),
    *(_slowly, _giant_headers, _pipelined, _versions, _lines, _garbage, _leaves),
)
