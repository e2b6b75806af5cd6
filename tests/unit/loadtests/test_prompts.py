"""Prompts: of a given length, alike only where they are meant to be."""

import pytest

from loadtests.prompts import TINY, TokenFit, prompt, spelled


@pytest.mark.parametrize("length", [1, 5, 24, 77, 5000])
def test_a_prompt_has_the_length_asked_for(length: int) -> None:
    made = prompt("one", length)
    assert len(made.encode()) == length
    assert made == prompt("one", length)


def test_two_prompts_differ_within_their_first_letters() -> None:
    beginnings = {prompt(f"run {number}", 200)[:16] for number in range(1000)}
    assert len(beginnings) == 1000


def test_a_prompt_is_single_letters() -> None:
    words = prompt("run 7", 400).split(" ")
    assert all(len(word) <= 1 for word in words)


def test_a_shared_prefix_is_the_same_and_what_follows_is_not() -> None:
    one = prompt("a", 300, prefix="system", prefix_bytes=100)
    two = prompt("b", 300, prefix="system", prefix_bytes=100)
    other = prompt("a", 300, prefix="another", prefix_bytes=100)
    assert one[:100] == two[:100]
    assert one[100:116] != two[100:116]
    assert other[:16] != one[:16]
    assert len(one) == len(two) == len(other) == 300


def test_a_prefix_longer_than_the_prompt_is_cut() -> None:
    assert prompt("a", 10, prefix="p", prefix_bytes=100) == spelled("p")[:10]


def test_the_fit_goes_through_what_was_measured() -> None:
    fit = TokenFit.through((320, 323), (64, 67))
    assert (fit.overhead, fit.per_byte) == (TINY.overhead, TINY.per_byte)
    assert fit.bytes_for(256) == 253
    assert fit.bytes_for(1) == 1
    assert fit.bytes_of(100) == 100


def test_a_tokenizer_of_words_needs_two_bytes_a_token() -> None:
    fit = TokenFit.through((64, 32 + 11), (320, 160 + 11))
    assert (fit.overhead, fit.per_byte) == (11, 0.5)
    assert fit.bytes_for(111) == 200


def test_a_server_that_counts_nothing_has_no_fit() -> None:
    with pytest.raises(ValueError, match="can't be made"):
        TokenFit.through((64, 50), (320, 50))
