"""Requests to the admin API as its own OpenAPI description tells of it, with some of it wrong."""

from __future__ import annotations

import json
import string
from random import Random
from typing import Any
from urllib.parse import quote

from loadtests.fuzz.bodies import mutated
from loadtests.fuzz.case import Case, request
from loadtests.fuzz.http_cases import JSON, METHODS, Headers, authorization, bearer

NAMES = ("n1", "n2", "n3/t", "alice", "0123456789ab", "", "..", "a/b/c", "é", "\x00", "x" * 300)
WRONG: tuple[Any, ...] = (None, True, -1, 0, 1.5, 2**70, "", "x", "\x00", [], {}, [1], "9" * 400)
WRONG_SHARE = 0.15


class AdminCases:
    """description: what /admin/openapi.json answers."""

    def __init__(self, description: dict[str, Any]) -> None:
        self._schemas = description.get("components", {}).get("schemas", {})
        self._operations = [
            (path, method.upper(), operation)
            for path, methods in sorted(description["paths"].items())
            for method, operation in sorted(methods.items())
        ]

    def case(self, random: Random, key: str) -> Case:
        """One operation, most of it as described."""
        path, method, operation = random.choice(self._operations)
        query = []
        for parameter in operation.get("parameters", ()):
            value = self._text(random, parameter["schema"])
            if parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", quote(value, safe="/"))
                path = path.replace(f"{{{parameter['name']}:path}}", quote(value, safe="/"))
            elif parameter.get("required") or random.random() < 0.5:
                query.append(f"{quote(parameter['name'])}={quote(value, safe='')}")
        target = path + ("?" + "&".join(query) if query else "")
        if random.random() < 0.05:
            method = random.choice(METHODS)
        body = None
        content = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if content is not None:
            made = self._value(random, content["schema"])
            spoilt = isinstance(made, dict) and random.random() < 0.3
            body = mutated(random, made) if spoilt else json.dumps(made).encode()
        headers: Headers = [*JSON, ("X-Forwarded-For", random.choice(["10.0.0.1", "é" * 500]))]
        headers += authorization(random, key) if random.random() < 0.1 else bearer(key)
        return Case("admin", (request(method, target, headers, body),), method, broken=True)

    def _text(self, random: Random, schema: dict[str, Any]) -> str:
        value = self._value(random, schema)
        return value if isinstance(value, str) else json.dumps(value)

    def _value(self, random: Random, schema: dict[str, Any]) -> Any:
        if random.random() < WRONG_SHARE:
            return random.choice(WRONG)
        if "$ref" in schema:
            return self._value(random, self._schemas[schema["$ref"].rsplit("/", 1)[1]])
        if "anyOf" in schema:
            return self._value(random, random.choice(schema["anyOf"]))
        if "enum" in schema:
            return random.choice(schema["enum"])
        match schema.get("type"):
            case "object":
                needed = schema.get("required", ())
                return {
                    name: self._value(random, inner)
                    for name, inner in schema.get("properties", {}).items()
                    if name in needed or random.random() < 0.5
                }
            case "array":
                items = schema.get("items", {})
                return [self._value(random, items) for _ in range(random.randint(0, 3))]
            case "integer":
                return random.choice([1, 2, 1000, schema.get("maximum", 5)])
            case "number":
                return random.choice([0.001, 1, 2.5, 1e6])
            case "boolean":
                return random.random() < 0.5
            case "null":
                return None
        if random.random() < 0.8:
            return random.choice(NAMES)
        return "".join(random.choices(string.printable, k=random.randint(0, 150)))
