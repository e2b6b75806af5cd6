"""The tiny model: its tokenizer, its chat template, and that it is the same everywhere."""

import hashlib
from pathlib import Path

import jinja2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from deployments.tiny_model import (
    CHAT_TEMPLATE,
    HIDDEN,
    KEPT,
    RECIPE_FILE,
    SAMPLED,
    SPECIAL_TOKENS,
    VOCABULARY,
    NotATinyModel,
    byte_tokenizer,
    ensure_tiny_model,
    random_weights,
)

TOKENIZER = byte_tokenizer()

# Any text that UTF-8 can carry and that spells out no special token.
texts = st.text(st.characters(exclude_categories=["Cs"])).filter(
    lambda text: not any(token in text for token in SPECIAL_TOKENS)
)


@given(texts)
def test_each_byte_is_the_token_of_its_number(text: str) -> None:
    assert TOKENIZER.encode(text).ids == list(text.encode())


@given(texts)
def test_decoding_gives_the_text_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids) == text


def test_special_tokens_follow_the_bytes() -> None:
    ids = [TOKENIZER.token_to_id(token) for token in SPECIAL_TOKENS]
    assert ids == list(range(256, VOCABULARY))
    assert TOKENIZER.get_vocab_size() == VOCABULARY


def test_a_chat_message_costs_its_bytes_and_two_tokens() -> None:
    prompt = jinja2.Template(CHAT_TEMPLATE).render(
        messages=[
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "héllo"},
        ],
        add_generation_prompt=True,
    )
    assert prompt == "<|system|>be brief<|end|><|user|>héllo<|end|><|assistant|>"
    assert len(TOKENIZER.encode(prompt)) == (8 + 2) + (6 + 2) + 1


def test_only_printable_characters_are_sampled() -> None:
    weights = random_weights()
    banned = np.flatnonzero(weights["lm_head.weight"][:, KEPT])
    assert sorted([*banned, *SAMPLED]) == list(range(VOCABULARY))
    # The kept coordinate is the same for all tokens, and no layer writes to it.
    assert set(weights["model.embed_tokens.weight"][:, KEPT]) == {1.0}
    written = [w for name, w in weights.items() if "o_proj" in name or "down_proj" in name]
    assert len(written) == 4
    assert all(w.shape[0] == HIDDEN and not w[KEPT].any() for w in written)


def test_the_folder_is_the_same_each_time(tmp_path: Path) -> None:
    def digests(folder: Path) -> dict[str, str]:
        return {
            file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()
        }

    one, two = ensure_tiny_model(tmp_path / "one"), ensure_tiny_model(tmp_path / "two")
    assert digests(one) == digests(two)
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= digests(one).keys()
    assert load_file(one / "model.safetensors").keys() == random_weights().keys()


def test_a_model_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    folder = ensure_tiny_model(tmp_path / "model")
    before = [(file.name, file.stat().st_mtime_ns) for file in folder.iterdir()]
    assert ensure_tiny_model(folder) == folder
    assert [(file.name, file.stat().st_mtime_ns) for file in folder.iterdir()] == before


def test_a_model_of_another_recipe_is_made_again(tmp_path: Path) -> None:
    folder = ensure_tiny_model(tmp_path / "model")
    recipe = (folder / RECIPE_FILE).read_text()
    (folder / RECIPE_FILE).write_text("an older recipe")
    ensure_tiny_model(folder)
    assert (folder / RECIPE_FILE).read_text() == recipe
    assert list(tmp_path.iterdir()) == [folder]  # nothing is left behind


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    with pytest.raises(NotATinyModel, match="name another folder"):
        ensure_tiny_model(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["precious"]
