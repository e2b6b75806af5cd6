"""Bodies are bounded before they are held, and stripped before they are sent on."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.bodies import RESERVED_FIELDS, ClientGoneError, check_body, read_body
from router.errors import ApiError


def receiving(*messages: dict[str, Any]) -> Any:
    left = list(messages)

    async def receive() -> dict[str, Any]:
        return left.pop(0)

    return receive


def part(body: bytes, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_in_parts_is_whole() -> None:
    receive = receiving(part(b"ab", True), part(b"", True), part(b"c", False))
    assert await read_body(receive, None, limit=3) == b"abc"


async def test_a_length_beyond_the_limit_is_refused_unread() -> None:
    with pytest.raises(ApiError, match="larger than 3") as error:
        await read_body(receiving(), "4", limit=3)
    assert error.value.status == 413


async def test_a_lying_length_does_not_help() -> None:
    with pytest.raises(ApiError):
        await read_body(receiving(part(b"abcd", True)), "1", limit=3)


async def test_a_client_that_leaves_while_sending_is_gone() -> None:
    with pytest.raises(ClientGoneError):
        await read_body(receiving(part(b"a", True), {"type": "http.disconnect"}), None, limit=3)


def test_a_sound_body_is_sent_on_as_it_came() -> None:
    data = b'{ "model": "tiny",  "prompt": "x" }'
    assert check_body(data).data is data


@given(
    st.sets(st.sampled_from(sorted(RESERVED_FIELDS)), min_size=1),
    st.dictionaries(st.text().map("_{}".format), st.integers()),  # no field that has a meaning
)
def test_reserved_fields_are_cut_and_nothing_else(
    reserved: set[str], others: dict[str, int]
) -> None:
    others = others | {"model": "tiny"}
    body = check_body(json.dumps(dict.fromkeys(reserved, 1) | others).encode())
    assert json.loads(body.data) == others


def test_a_field_spelt_with_escapes_is_cut_too() -> None:
    body = check_body(rb'{"model": "tiny", "\u0070riority": 9}')
    assert b"9" not in body.data
    assert body.priority == 9


@pytest.mark.parametrize("priority", ["1", 1.5, True, 1001, -(2**70)])
def test_a_priority_that_makes_no_sense_is_400(priority: object) -> None:
    with pytest.raises(ApiError, match="from -1000 to 1000"):
        check_body(json.dumps({"model": "tiny", "priority": priority}).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"{}", b'{"model": ""}'])
def test_unsound_bodies_are_400(data: bytes) -> None:
    with pytest.raises(ApiError) as error:
        check_body(data)
    assert error.value.status == 400


@given(st.binary(max_size=200))
def test_no_body_causes_another_error(data: bytes) -> None:
    try:
        check_body(data)
    except ApiError as error:
        assert error.status == 400


def test_deep_nesting_survives_the_cut() -> None:
    deep = b"[" * 90 + b"]" * 90
    body = check_body(b'{"model": "tiny", "priority": 1, "x": ' + deep + b"}")
    assert json.loads(body.data) == {"model": "tiny", "x": json.loads(deep)}


def test_large_integers_survive_the_cut() -> None:
    body = check_body(b'{"model": "tiny", "priority": 1, "seed": -9223372036854775809}')
    assert json.loads(body.data)["seed"] == -(2**63) - 1


@pytest.mark.parametrize("depth", [101, 500, 100_000])
def test_deep_nesting_is_400(depth: int) -> None:
    with pytest.raises(ApiError, match=r"nested deeper|not valid JSON"):
        check_body(b'{"model": "tiny", "x": ' + b"[" * depth + b"]" * depth + b"}")


def test_more_arrays_than_can_be_parsed_in_a_moment_are_400() -> None:
    with pytest.raises(ApiError, match="objects and arrays"):
        check_body(b'{"model": "tiny", "x": [' + b"[]," * 250_000 + b"0]}")


@pytest.mark.parametrize("length", ["²", "-1", "1e9", "+5", " ", "9" * 10_000])
async def test_no_length_causes_another_error(length: str) -> None:
    try:
        assert await read_body(receiving(part(b"abc", False)), length, limit=3) == b"abc"
    except ApiError as error:
        assert error.status == 413


async def test_a_body_that_does_not_come_is_408() -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.sleep(3600)
        return {}

    with pytest.raises(ApiError, match="has not come") as error:
        await read_body(receive, None, limit=3, timeout_s=0.01)
    assert error.value.status == 408
    assert (b"connection", b"close") in error.value.headers()


@pytest.mark.parametrize(
    ("path", "fields", "tokens"),
    [
        ("/v1/chat/completions", {}, None),
        ("/v1/chat/completions", {"max_tokens": 7}, 7),
        ("/v1/chat/completions", {"max_completion_tokens": 7, "max_tokens": 9, "n": 3}, 21),
        ("/v1/responses", {"max_output_tokens": 5}, 5),
        ("/v1/chat/completions", {"max_tokens": "7"}, None),
        ("/v1/chat/completions", {"max_tokens": -1}, None),
        ("/v1/chat/completions", {"max_tokens": 10**30}, None),
        ("/v1/embeddings", {}, 0),
    ],
)
def test_how_many_tokens_it_may_make(path: str, fields: dict[str, Any], tokens: int | None) -> None:
    body = check_body(json.dumps({"model": "tiny", **fields}).encode(), path)
    assert body.max_output == tokens
