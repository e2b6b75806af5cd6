"""The JSON schema of a Serve config file with Fairlane in it, for editors and other programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from deployments.config import AppConfig, LiveConfig
from deployments.configuration.file import IMPORT_PATH, ROUTER

SCHEMA = Path(__file__).parents[1] / "config.schema.json"


def args_schema() -> dict[str, Any]:
    """Of the `args` alone."""
    return AppConfig.model_json_schema()


def file_schema() -> dict[str, Any]:
    """Of the whole file: what is Serve's own is left open, and so are other applications."""
    _, made = models_json_schema([(AppConfig, "validation"), (LiveConfig, "validation")])
    router = {
        "if": {"properties": {"name": {"const": ROUTER}}},
        "then": {"properties": {"user_config": {"$ref": "#/$defs/LiveConfig"}}},
    }
    application = {
        "if": {"properties": {"import_path": {"const": IMPORT_PATH}}},
        "then": {
            "required": ["args"],
            "properties": {
                "args": {"$ref": "#/$defs/AppConfig"},
                "deployments": {"type": "array", "items": router},
            },
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A Serve config file with Fairlane",
        "type": "object",
        "required": ["applications"],
        "properties": {"applications": {"type": "array", "items": application}},
        "$defs": made["$defs"],
    }


def schema_text(schema: dict[str, Any]) -> str:
    """As it is kept in a file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
