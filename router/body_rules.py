"""What a body may ask of a replica's HTTP server, which renders templates, prepares media and
fetches URLs on one event loop for all clients.

The fair queue shares an engine; it cannot share what happens before the engine. So what lets one
request hold up a replica's server, or send it somewhere, is refused here unless the operator allows
it (vLLM's CVE-2025-62426 is of this kind).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from router.errors import ApiError

MAX_DEPTH = 100  # of JSON; deeper than any tool's schema, far from every parser's recursion limit
CONTAINERS = frozenset({dict, list})
TEMPLATE_FIELDS = ("chat_template", "chat_template_kwargs")
MEDIA_FIELDS = ("media_io_kwargs", "mm_processor_kwargs")

# Where the APIs that vLLM speaks have URLs of media: OpenAI's parts, and Anthropic's `source`.
URL_FIELDS = frozenset({"image_url", "audio_url", "video_url", "file_url", "source"})
# Fields whose content is the client's own JSON, shown to the model and never fetched.
NEVER_FETCHED = frozenset({"tools", "response_format", "metadata"})

# Fields of which vLLM 0.29 takes the kind for granted, and answers 500 to another.
KINDS: dict[str, tuple[type, str]] = {
    "messages": (list, "an array"),
    "tools": (list, "an array"),
    "structured_outputs": (dict, "an object"),
}

# Path -> a field of which vLLM tries each object against some thirty kinds, at up to 0.4 ms on the
# event loop of all clients.
KINDS_TRIED = {"/v1/responses": "input"}
MAX_TRIED = 1000

# Path -> the fields that may be lists of prompts. What is not here has one.
PROMPT_FIELDS = {"/v1/completions": ("prompt", "prompt_embeds")}
INPUT_FIELDS = {
    "/v1/embeddings": ("input",),
    "/v1/score": ("text_1", "text_2", "data_1", "data_2", "queries", "documents", "items"),
    "/v1/rerank": ("documents",),
}


@dataclass(frozen=True, slots=True)
class BodyRules:
    """What the operator allows.

    max_sequences: that one request may have the engine write, its prompts times `n`. max_inputs:
    texts in one request for embeddings, scores or a ranking. allow_chat_template: a client's own,
    and arguments to the model's. allow_media_options: how images and sound are read.
    allow_remote_media: URLs for the replica to fetch (`data:` URLs are always allowed).
    """

    max_sequences: int = 128
    max_inputs: int = 2048
    allow_chat_template: bool = False
    allow_media_options: bool = False
    allow_remote_media: bool = False

    def check(self, path: str, content: dict[str, Any]) -> None:
        """Raises ApiError 400 that names the field. O(size of the body)."""
        for depth, _ in enumerate(_levels(content)):
            if depth >= MAX_DEPTH:
                raise ApiError(400, f"the request body is nested deeper than {MAX_DEPTH} levels")
        _check_kinds(content)
        if not self.allow_chat_template:
            _refuse(content, TEMPLATE_FIELDS, "router.allow_chat_template")
        if not self.allow_media_options:
            _refuse(content, MEDIA_FIELDS, "router.allow_media_options")
        if not self.allow_remote_media:
            _refuse_urls(content)
        _check_tried(path, content)
        self._check_sequences(path, content)
        _check_count(content, INPUT_FIELDS.get(path, ()), 1, self.max_inputs, "texts")

    def _check_sequences(self, path: str, content: dict[str, Any]) -> None:
        copies = 1
        for name in ("n", "best_of"):
            value = content.get(name)
            if value is None:
                continue
            # Strictly: vLLM would read "100000" and 1e5 as numbers, too.
            if not isinstance(value, int) or isinstance(value, bool):
                raise ApiError(400, f"'{name}' must be an integer", param=name)
            if value > self.max_sequences:
                raise _too_many(name, value, self.max_sequences, "sequences")
            copies = max(copies, value)
        fields = PROMPT_FIELDS.get(path, ())
        _check_count(content, fields, copies, self.max_sequences, "sequences")


def asks_prompt_logprobs(path: str, content: dict[str, Any]) -> str | None:
    """The field that asks for the log probabilities of the prompt's own tokens, if one does.

    vLLM makes them of a prompt that is to be echoed, too. Where it serves LoRA adapters they are
    wrong, of other adapters, or (on CPU) end the engine and all that runs in it:
    https://github.com/vllm-project/vllm/issues/16668.
    """
    if content.get("prompt_logprobs") is not None:
        return "prompt_logprobs"
    if content.get("echo") in (None, False):
        return None
    # Chats have 0 where they name no number, and that is enough.
    return None if path == "/v1/completions" and content.get("logprobs") is None else "echo"


def _check_kinds(content: dict[str, Any]) -> None:
    for name, (kind, called) in KINDS.items():
        value = content.get(name)
        if value is not None and not isinstance(value, kind):
            raise ApiError(400, f"'{name}' must be {called}", param=name)


def _check_tried(path: str, content: dict[str, Any]) -> None:
    name = KINDS_TRIED.get(path)
    value = content.get(name) if name is not None else None
    if not isinstance(value, list):
        return
    if not all(isinstance(item, dict) for item in value):
        raise ApiError(400, f"'{name}' must be a text or an array of objects", param=name)
    count = sum(len(level) for level in _levels(value))
    if count > MAX_TRIED:
        what = f"'{name}' has {count} objects and arrays in it; send at most {MAX_TRIED}"
        raise ApiError(400, what, param=name)


def _refuse(content: dict[str, Any], names: tuple[str, ...], setting: str) -> None:
    for name in names:
        if content.get(name) is not None:
            raise ApiError(
                400, f"'{name}' is not allowed here; an operator may set {setting}", param=name
            )


def _refuse_urls(content: dict[str, Any]) -> None:
    prompts = {name: value for name, value in content.items() if name not in NEVER_FETCHED}
    for level in _levels(prompts):
        for value in level:
            for name in URL_FIELDS.intersection(value) if isinstance(value, dict) else ():
                found = value[name]
                url = found.get("url") if isinstance(found, dict) else found
                if isinstance(url, str) and not url.startswith("data:"):
                    raise ApiError(
                        400,
                        f"'{name}' must be a data: URL: replicas fetch nothing; an operator may "
                        "set router.allow_remote_media",
                        param=name,
                    )


def _levels(value: Any) -> Iterator[list[Any]]:
    """The objects and arrays of a JSON value, level by level: without recursion."""
    level = [value]
    while level:
        yield level
        inside = (outer.values() if isinstance(outer, dict) else outer for outer in level)
        level = [
            inner
            for values in inside
            if not CONTAINERS.isdisjoint(map(type, values))  # a million tokens: no loop in Python
            for inner in values
            if type(inner) in CONTAINERS
        ]


def _check_count(
    content: dict[str, Any], names: tuple[str, ...], copies: int, most: int, what: str
) -> None:
    for name in names:
        value = content.get(name)
        # A list of numbers is one prompt, in tokens.
        several = isinstance(value, list) and value and not isinstance(value[0], int)
        count = copies * (len(value) if several and isinstance(value, list) else 1)
        if count > most:
            raise _too_many(name, count, most, what)


def _too_many(name: str, count: int, most: int, what: str) -> ApiError:
    message = f"'{name}' asks for {count} {what} in one request; send at most {most}"
    return ApiError(400, message, param=name)
