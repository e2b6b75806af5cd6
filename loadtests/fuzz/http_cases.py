"""Requests that are HTTP, and odd in their body, path, method or headers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random

from loadtests.fuzz.bodies import MODEL, SOUND, mutated, sound
from loadtests.fuzz.case import Case, request

Headers = list[tuple[str, str | bytes]]

JSON: Headers = [("Content-Type", "application/json")]
METHODS = (
    *("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "POST"),
)
PATHS = (
    *("/", "//", "/v1", "/v1/", "/v1/models", "/v1/models/tiny", "/v1/models/", "/v1/models/a/b"),
    *("/v1/chat/completions/", "/v1/../admin/clients", "/v1/%2e%2e/admin/keys", "/v1//models"),
    *("/metrics", "/docs", "/openapi.json", "/healthz", "/readyz", "/v1/files", "/v1/%00"),
    *("/v1/models/%ff%fe", "/v1/models/%ed%a0%80", "/v1/models/%0d%0aX-Y:%20z", "/v1/models?a=%"),
    *("/%", "/%zz", "/v1/models/" + "a" * 5000, "/v1/chat/completions?n=1#x", "/admin", "/adminx"),
    *("/me", "/me/", "/me?pool=x", "/dashboard", "/dashboard/login", "/dashboard/session"),
    *("/dashboard/admin/clients", "/dashboard/admin/live", "/dashboard/static/../app.py"),
    *("/dashboard/static/%2e%2e%2fapp.py", "/dashboard/static/app.js", "/dashboard/%00"),
    *("http://other/v1/models", "*", "/v1/models;a=b", "/V1/MODELS", "/-/healthz", "/tokenize"),
)
LENGTHS = ("0", "5", "99999999999999999999999", "-1", "+5", "1e3", "0x5", "", " ", "5, 5", "²")
IDENTITY = (
    *(
        "X-Api-Key",
        "Api-Key",
        "OpenAI-Organization",
        "OpenAI-Project",
        "X-Client",
        "X-Forwarded-For",
    ),
    *("X-Fairlane-Grant", "X-Fairlane-Client", "X-Fairlane-Request-Id", "X-Request-Id", "Cookie"),
    *("X-Fairlane-Queue-Wait-Ms", "X-Original-Url", "X-Http-Method-Override", "Forwarded", "Te"),
)
VALUES: tuple[str | bytes, ...] = (
    *("", "bob", "a" * 3000, "\t", "admin", "127.0.0.1", "{}", "é", "%0d%0a"),
    *(b"\xff\xfe", b"\x80", b"a\x01b"),
)


def bearer(key: str) -> Headers:
    """The header that says who asks."""
    return [("Authorization", f"Bearer {key}")]


def sound_case(key: str) -> Case:
    """What every deployment must serve."""
    path = "/v1/chat/completions"
    return Case("sound", (request("POST", path, bearer(key) + JSON, _sound(SOUND[path][0])),))


def body_case(random: Random, key: str, models: Sequence[str] = (MODEL,)) -> Case:
    """A body that is not as it should be; now and then one that is."""
    path, content = sound(random, models)
    if random.random() < 0.1:
        return sound_case(key)
    data = mutated(random, content)
    return Case("body", (request("POST", path, bearer(key) + JSON, data),))


def path_case(random: Random, key: str) -> Case:
    """Any method on any path."""
    method = random.choice(METHODS)
    path = random.choice([*PATHS, *SOUND])
    if random.random() < 0.2:
        path += "".join(random.choice("/.%&?=;a~\\é") for _ in range(random.randint(1, 20)))
    headers = random.choice([[], bearer(key), bearer(key) + JSON])
    body = random.choice([None, b"", b"{}", b"x" * 100])
    return Case("path", (request(method, path, headers, body),), method, broken=True)


def header_case(random: Random, key: str, models: Sequence[str] = (MODEL,)) -> Case:
    """A sound body under odd headers."""
    path, content = sound(random, models)
    data = _sound(content)
    headers: Headers = list(JSON)
    headers += random.choice([bearer(key), bearer(key) * 2, authorization(random, key)])
    for _ in range(random.randint(0, 4)):
        headers.append((random.choice(IDENTITY), random.choice(VALUES)))
    if random.random() < 0.1:
        return _upgrade(random, path, headers, data)
    if random.random() < 0.2:
        headers.append(("Expect", random.choice(["100-continue", "x"])))
    if random.random() < 0.3:
        headers.append(("Content-Type", random.choice(["text/plain", "multipart/form-data", "é"])))
    if random.random() < 0.2:
        headers.append(("Content-Length", random.choice(LENGTHS)))
        raw = request("POST", path, headers, data, length=random.random() < 0.5)
        # The body may be shorter than was said: then the server waits for the rest, for a while.
        return Case("length", (raw,), broken=True, half_close=random.random() < 0.7)
    if random.random() < 0.1:
        headers += [(f"X-{number}", "v" * 50) for number in range(random.choice([50, 500]))]
    random.shuffle(headers)
    return Case("header", (request("POST", path, headers, data),), broken=True)


def _upgrade(random: Random, path: str, headers: Headers, data: bytes) -> Case:
    """To another protocol. uvicorn leaves a web socket by POST unanswered, until it is closed."""
    protocol, method = random.choice(["websocket", "h2c"]), random.choice(["GET", "POST"])
    headers += [("Connection", "Upgrade"), ("Upgrade", protocol), ("Sec-WebSocket-Version", "13")]
    headers.append(("Sec-WebSocket-Key", random.choice(["dGhlIHNhbXBsZSBub25jZQ==", "x"])))
    raw = request(method, path, headers, data if method == "POST" else None)
    owed = (protocol, method) != ("websocket", "POST")
    return Case("upgrade", (raw,), method, owed=owed, broken=True)


def authorization(random: Random, key: str) -> Headers:
    """Ways to say who one is, most of them wrong."""
    values: list[str | bytes] = [
        *("", "Bearer", "Bearer ", f"bearer {key}", f"BEARER  {key} ", f"Basic {key}", key),
        *(f"Bearer {key}x", f"Bearer {key[:-1]}", f"Bearer\t{key}", f"Bearer {key}, Bearer x"),
        *("Bearer " + "k" * 5000, b"Bearer \xff\xfe", "Bearer é", "Bearer \ud800", "Bearer *"),
    ]
    return [("Authorization", random.choice(values))]


def _sound(content: dict[str, object]) -> bytes:
    return json.dumps(content).encode()
