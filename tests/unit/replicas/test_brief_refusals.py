"""A refusal is short, however much is wrong."""

from __future__ import annotations

import httpx
from fastapi import FastAPI
from pydantic import BaseModel

from replicas.brief_refusals import shorten


class Item(BaseModel):
    kind: str
    count: int


class Body(BaseModel):
    items: list[Item]


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
        many = await http.post("/", json={"items": ["x" * 1000] * 800})
        assert many.status_code == 422
        assert len(many.content) < 1000
        assert "800 errors" in many.text
