"""What is made of the models is what they say: the reference page, the schema."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

import deployments
from deployments.config import AppConfig, LiveConfig
from deployments.configuration.fields import leaves, model_in
from deployments.configuration.reference import PAGE, renewed, table
from deployments.configuration.schema import SCHEMA, file_schema, schema_text

FOLDER = Path(deployments.__file__).parent
MAKE = "run `make docs`"


def test_every_field_is_described() -> None:
    models = [AppConfig]
    for model in models:
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name}"
            assert field.description.endswith("."), f"{model.__name__}.{name}: a sentence"
            inside = model_in(field.annotation)
            if inside is not None:
                models.append(inside)


def test_what_is_live_is_a_part_of_the_whole() -> None:
    assert {name for name, _ in leaves(LiveConfig)} < {name for name, _ in leaves(AppConfig)}
    assert "| `clients[].weight` | 1 | live |" in table()
    assert "| `router.replicas` | 2 | restart |" in table()


def test_the_page_is_what_the_models_say() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == renewed(page), MAKE


def test_the_schema_is_what_the_models_say() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(file_schema()), MAKE


@pytest.mark.parametrize("name", ["local.yaml", "gpu.yaml"])
def test_our_files_fit_the_schema_that_they_name(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    schema = text.splitlines()[0].removeprefix("# yaml-language-server: $schema=")
    jsonschema.validate(yaml.safe_load(text), json.loads((FOLDER / schema).read_text()))


@pytest.mark.parametrize(
    "user_config", [{"policy": "fcfs"}, {"clients": [{"name": "a", "weight": 0}]}]
)
def test_the_schema_refuses_what_is_unsound(user_config: dict[str, object]) -> None:
    content = yaml.safe_load((FOLDER / "local.yaml").read_text())
    content["applications"][0]["deployments"] = [{"name": "Router", "user_config": user_config}]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content, file_schema())
