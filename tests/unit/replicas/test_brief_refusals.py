"""A refusal is short, however much is wrong, and made at the first thing that is."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, TypeAdapter, ValidationError

from replicas.brief_refusals import Brief, shorten


class Item(BaseModel):
    kind: str
    count: int


class Wide(BaseModel):
    model_config = {"extra": "forbid"}


class Body(BaseModel):
    items: list[Item]
    wide: Wide | None = None


async def test_few_errors_are_told_one_by_one_and_many_are_counted() -> None:
    app = FastAPI()

    @app.post("/")
    async def total(body: Body) -> int:
        return sum(item.count for item in body.items)

    assert shorten(app) == 1
    assert shorten(app) == 0  # once is enough
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://replica") as http:
        fine = await http.post("/", json={"items": [{"kind": "a", "count": 2}] * 800})
        assert (fine.status_code, fine.json()) == (200, 1600)
        few = await http.post("/", json={"items": [{"kind": "a"}]})
        assert few.status_code == 422
        assert few.json()["detail"][0]["loc"] == ["body", "items", 0, "count"]
        first = await http.post("/", json={"items": ["x"] * 800})
        assert [error["loc"] for error in first.json()["detail"]] == [["body", "items", 0]]
        wide = {f"x{n}": 0 for n in range(800)}
        many = await http.post("/", json={"items": [], "wide": wide})
        assert many.status_code == 422
        assert len(many.content) < 1000
        assert "800 errors" in many.text


def test_of_vllms_dearest_list_one_item_is_tried() -> None:
    protocol = pytest.importorskip("vllm.entrypoints.openai.responses.protocol")
    brief = Brief(TypeAdapter(protocol.ResponsesRequest))
    fitting = {"role": "user", "content": "hi"}
    assert len(brief.validate_python({"model": "m", "input": [fitting] * 3}).input) == 3

    def errors(items: list[dict[str, str]]) -> int:
        with pytest.raises(ValidationError) as refusal:
            brief.validate_python({"model": "m", "input": items})
        return refusal.value.error_count()

    assert errors([{}] * 1_000) == errors([{}])
    assert errors([fitting, {}, {}]) == errors([fitting, {}])
