"""Bodies: sound ones of the OpenAI API, and what random changes make of them.

All randomness comes from the `Random` given, so a case is known by its seed and number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

TEXT = "what-was-asked"  # in every sound body; must never be in a log
MODEL = "tiny"  # in every sound body, unless others are named
SOUND: dict[str, list[dict[str, Any]]] = {
    "/v1/chat/completions": [
        {"model": MODEL, "messages": [{"role": "user", "content": TEXT}], "max_tokens": 4},
        {
            "model": MODEL,
            "messages": [
                {"role": "system", "content": "You are short."},
                {"role": "user", "content": [{"type": "text", "text": TEXT}]},
            ],
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0.5,
            "max_tokens": 4,
            "n": 2,
            "stop": ["x"],
            "logit_bias": {"5": 1},
            "priority": 3,
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        },
    ],
    "/v1/completions": [
        {"model": MODEL, "prompt": TEXT, "max_tokens": 4, "seed": 7, "vllm_xargs": {"a": 1}},
        {"model": MODEL, "prompt": [TEXT, "b"], "max_tokens": 2, "stream": True, "n": 1},
        {"model": MODEL, "prompt": [1, 2, 3], "max_tokens": 2, "logprobs": 1, "echo": True},
    ],
    "/v1/embeddings": [{"model": MODEL, "input": [TEXT, "b"], "encoding_format": "float"}],
    "/v1/responses": [{"model": MODEL, "input": TEXT, "max_output_tokens": 4}],
    "/v1/messages": [
        {"model": MODEL, "messages": [{"role": "user", "content": TEXT}], "max_tokens": 4}
    ],
    "/tokenize": [{"model": MODEL, "prompt": TEXT}],
}
FIELDS = (
    *("model", "messages", "prompt", "input", "n", "best_of", "stream", "stop", "max_tokens"),
    *("temperature", "logprobs", "priority", "request_id", "vllm_xargs", "kv_transfer_params"),
    *("ec_transfer_params", "chat_template", "chat_template_kwargs", "mm_processor_kwargs"),
    *("media_io_kwargs", "cache_salt", "user", "seed", "tools", "response_format", "logit_bias"),
    *("structured_outputs", "stream_options", "prompt_embeds", "truncate_prompt_tokens"),
)


class Raw:
    """JSON text that no Python value gives."""

    def __init__(self, text: str) -> None:
        self.text = text


def _deep(random: Random) -> Raw:
    depth = random.choice([5, 99, 101, 300, 900, 1024, 5000, 100_000])
    begin, end = random.choice([("[", "]"), ('{"a":', "}")])
    return Raw(begin * depth + "1" + end * depth)


STRANGE: tuple[Callable[[Random], Any], ...] = (
    lambda random: random.choice([None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, 2**64]),
    lambda random: Raw(random.choice(["NaN", "Infinity", "-Infinity", "1e999", "-0", "1e-999"])),
    lambda random: Raw("9" * random.choice([20, 400, 5000])),
    lambda random: random.choice([0.1, -1e308, 1e-308, 1.5]),
    lambda random: random.choice(
        ["", " ", "tiny", "0", "null", "\x00", "a\r\nx: y", "../..", "%s"]
    ),
    lambda random: random.choice(["\ud800", "\udfff\ud800", "\u202e", "𝄞", "\ufeff", "é" * 50]),
    lambda random: "x" * random.choice([300, 70_000]),
    lambda random: random.choice([[], {}, [[]], [None], {"": None}, [[1], ["a"]], {"type": "x"}]),
    lambda random: ["x"] * random.choice([127, 129, 3000]),
    _deep,
    lambda random: {"url": random.choice(["http://169.254.169.254/", "file:///etc/passwd"])},
    lambda random: [{"role": "user", "content": [{"type": "image_url", "image_url": "http://x"}]}],
    lambda random: {"__proto__": {"a": 1}, "__class__": "x", "$ref": "#"},
)


def sound(random: Random, models: Sequence[str] = (MODEL,)) -> tuple[str, dict[str, Any]]:
    """(path, body), for one of the models."""
    path = random.choice(list(SOUND))
    return path, random.choice(SOUND[path]) | {"model": random.choice(models)}


def mutated(random: Random, content: dict[str, Any]) -> bytes:
    """The body after some changes to its fields, and some to its bytes."""
    fields: list[tuple[str, Any]] = list(content.items())
    for _ in range(random.randint(1, 3)):
        strange = random.choice(STRANGE)(random)
        place = random.randrange(len(fields)) if fields else 0
        match random.randrange(5):
            case 0 if fields:
                fields[place] = (fields[place][0], strange)
            case 1 if fields:
                fields.pop(place)
            case 2 if fields:  # one name twice
                fields.append((fields[place][0], strange))
            case 3 if fields:  # somewhere inside
                name, value = fields[place]
                fields[place] = (name, _inside(random, value, strange))
            case _:
                fields.insert(place, (random.choice(FIELDS), strange))
    text = "{" + ",".join(f"{_name(random, k)}:{_json(v)}" for k, v in fields) + "}"
    data = text.encode("utf-8", "surrogatepass")
    return _bytes_changed(random, data) if random.random() < 0.25 else data


def _inside(random: Random, value: Any, strange: Any) -> Any:
    if isinstance(value, dict) and value:
        name = random.choice(list(value))
        return value | {name: _inside(random, value[name], strange)}
    if isinstance(value, list) and value:
        place = random.randrange(len(value))
        return [*value[:place], _inside(random, value[place], strange), *value[place + 1 :]]
    return strange


def _name(random: Random, name: str) -> str:
    if random.random() < 0.05 and name:  # the same to a JSON parser
        return f'"\\u{ord(name[0]):04x}{name[1:]}"'
    return json.dumps(name)


def _json(value: Any) -> str:
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(k)}:{_json(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_json, value)) + "]"
    return json.dumps(value, ensure_ascii=not isinstance(value, str) or "\ud800" in value)


def _bytes_changed(random: Random, data: bytes) -> bytes:
    place = random.randrange(len(data)) if data else 0
    match random.randrange(7):
        case 0:
            return data[:place]
        case 1:
            return data[:place] + random.randbytes(random.randint(1, 8)) + data[place:]
        case 2:
            return data[:place] + b"\x00" + data[place:]
        case 3:
            return b"\xef\xbb\xbf" + data
        case 4:
            return data.decode("utf-8", "replace").encode("utf-16")
        case 5:
            return data + random.choice([b"{}", b"]", b" \n\t", b"\x00", b"//"])
        case _:
            return random.randbytes(random.randint(0, 100))
