"""Every manifest against the schema of its kind, with no field that the schema does not know.

An API server drops a misspelt field without a word (of a custom resource) or with a warning; here
it is an error. Core kinds: `kubernetes-validate`. RayService: KubeRay's definition, closed. The
rest: crds/used.yaml.
"""

from __future__ import annotations

import gzip
import re
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import yaml
from kubernetes_validate.utils import schema_contents
from referencing import Registry, Resource

from deployments.kubernetes.manifest import Manifest, scalars

KUBERNETES = "1.33"  # the oldest release that had support when this was written
KUBERAY = files("deployments.kubernetes") / "crds" / "ray.io_rayservices.yaml.gz"
USED = files("deployments.kubernetes") / "crds" / "used.yaml"
QUANTITY = re.compile(r"[+-]?([0-9]+|[0-9]+\.[0-9]*|\.[0-9]+)(m|k|[KMGTPE]i?|[eE][+-]?[0-9]+)?")

Schemas = Mapping[str, dict[str, Any]]
"""JSON schemas by apiVersion/kind."""


def custom_schemas(*sources: str) -> dict[str, dict[str, Any]]:
    """Ours, and over them those of definitions at paths or URLs (plain or .gz, one or many)."""
    schemas: dict[str, dict[str, Any]] = yaml.safe_load(USED.read_text(encoding="utf-8"))
    schemas |= definitions(KUBERAY.read_bytes())
    for source in sources:
        schemas |= definitions(_read(source))
    return schemas


def definitions(data: bytes) -> dict[str, dict[str, Any]]:
    """The closed schemas of CustomResourceDefinitions in YAML."""
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a megabyte: ten times faster in C
    found = {}
    for document in yaml.load_all(data, loader):
        for crd in (document or {}).get("items", [document]):
            if not crd or crd.get("kind") != "CustomResourceDefinition":
                continue
            spec = crd["spec"]
            for version in spec["versions"]:
                schema = version.get("schema", {}).get("openAPIV3Schema")
                if schema:
                    name = f"{spec['group']}/{version['name']}/{spec['names']['kind']}"
                    found[name] = closed(schema)
    return found


def _read(source: str) -> bytes:
    if source.startswith(("http://", "https://")):
        with urllib.request.urlopen(source, timeout=30) as answer:
            return bytes(answer.read())
    return Path(source).read_bytes()


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI schema of a definition as a JSON schema that takes no unknown field."""
    made = {
        name: value
        for name, value in schema.items()
        if not name.startswith("x-kubernetes") and name not in ("description", "format", "default")
    }
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
        made["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    properties = schema.get("properties")
    if properties is not None:
        made["properties"] = {name: closed(inner) for name, inner in properties.items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
        made["required"] = [
            name for name in schema.get("required", ()) if "default" not in properties.get(name, {})
        ]
    if isinstance(schema.get("additionalProperties"), dict):
        made["additionalProperties"] = closed(schema["additionalProperties"])
    if isinstance(schema.get("items"), dict):
        made["items"] = closed(schema["items"])
    if made.pop("nullable", False):
        made = {"anyOf": [made, {"type": "null"}]}
    return made


def problems(manifest: Manifest, custom: Schemas) -> Iterator[str]:
    """What is wrong with it by its schema, and quantities that are none."""
    validate = _validator(manifest, custom)
    if validate is None:
        yield manifest.problem(("apiVersion",), f"no schema is known of {manifest.api}")
        return
    for error in sorted(validate(manifest.content), key=lambda error: list(map(str, error.path))):
        deepest = jsonschema.exceptions.best_match([error]) or error
        yield manifest.problem(list(deepest.absolute_path), deepest.message)
    yield from _bad_quantities(manifest)


def _validator(manifest: Manifest, custom: Schemas) -> Callable[[Any], Iterator[Any]] | None:
    if manifest.api in custom:
        return jsonschema.Draft202012Validator(custom[manifest.api]).iter_errors
    return _core(str(manifest.content.get("apiVersion")), manifest.kind)


@cache
def _core(api_version: str, kind: str) -> Callable[[Any], Iterator[Any]] | None:
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    folder = f"kubernetes-json-schema/v{KUBERNETES}.0-local-strict"
    try:
        schema = schema_contents(f"{folder}/{kind.lower()}-{group}.json", KUBERNETES)
    except FileNotFoundError:
        return None
    registry = Resource.from_contents(schema) @ (_definitions(folder) @ Registry())
    return jsonschema.Draft202012Validator(schema, registry=registry).iter_errors


@lru_cache(1)
def _definitions(folder: str) -> Resource[Any]:
    return Resource.from_contents(schema_contents(f"{folder}/_definitions.json", KUBERNETES))


def _bad_quantities(manifest: Manifest) -> Iterator[str]:
    """Schemas say of a quantity only that it is text."""
    for path, value in scalars(manifest.content):
        of_resources = len(path) > 2 and path[-2] in ("requests", "limits")
        if (of_resources or path[-1] == "sizeLimit") and not QUANTITY.fullmatch(str(value)):
            yield manifest.problem(path, f"{value!r} is no quantity: write 500m, 2 or 4Gi")
