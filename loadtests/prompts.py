"""Prompts of a given length, for any model, that share a beginning only where they are meant to.

A prompt is a row of single letters with spaces between: ``k q a e r ...``. Nearly every tokenizer
takes a space and a letter as one token, and one that works byte by byte (the tiny model's) takes
them as two, so in both the number of tokens grows evenly with the number of bytes, and may be cut
to any length. By how much per byte, and what the chat template adds, is a property of the
model: `TokenFit`, which two requests suffice to find (`TokenFit.through`).

The first letters of a prompt's own part spell who it is (`spelled`): two prompts differ within
their first tokens, so no prefix cache can serve one with the other's. What follows is the same row
for all. A shared prefix is spelled by its name in the same way.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_ROW = " ".join("the quick brown fox jumps over lazy dogs".replace(" ", "")) + " "
_SPELLED = 12


@dataclass(frozen=True, slots=True)
class TokenFit:
    """What a prompt of so many bytes costs: ``overhead + per_byte * bytes`` tokens."""

    overhead: float
    per_byte: float

    @classmethod
    def through(cls, first: tuple[int, int], second: tuple[int, int]) -> TokenFit:
        """Return the line through two measured (bytes, tokens) of different length.

        Raises ValueError when more bytes did not cost more tokens.
        """
        (few_bytes, few), (many_bytes, many) = sorted((first, second))
        if many <= few:
            raise ValueError(
                f"{many_bytes} bytes cost {many} tokens and {few_bytes} cost {few}: "
                "prompts of a given length can't be made for this server"
            )
        per_byte = (many - few) / (many_bytes - few_bytes)
        return cls(few - per_byte * few_bytes, per_byte)

    def bytes_for(self, tokens: int) -> int:
        """Return how long a prompt is that costs about so many tokens, 1 byte or more."""
        return max(1, round((tokens - self.overhead) / self.per_byte))

    def bytes_of(self, tokens: int) -> int:
        """Return how many bytes so many tokens have, without the template's."""
        return max(0, round(tokens / self.per_byte))


# The tiny model's template adds three tokens to a message (deployments/tiny_model.py).
TINY = TokenFit(3.0, 1.0)
# One word of a letter and a space is a token; what the template adds is not known.
WORDS = TokenFit(0.0, 0.5)


def spelled(name: str) -> str:
    """Return twelve letters, with spaces between, that stand for this name and no other."""
    digest = hashlib.sha256(name.encode()).digest()
    return " ".join(_LETTERS[byte % 26] for byte in digest[:_SPELLED]) + " "


def prompt(name: str, length: int, *, prefix: str | None = None, prefix_bytes: int = 0) -> str:
    """Return a prompt of ``length`` bytes (ASCII characters), the same for the same arguments.

    Its first ``prefix_bytes`` are those of every prompt with this ``prefix``, when that is given;
    what follows is of its own by ``name``.
    """
    shared = _row(prefix, prefix_bytes)[:length] if prefix is not None else ""
    return shared + _row(name, length - len(shared))


def _row(name: str, length: int) -> str:
    opening = spelled(name)
    repeats = max(0, -(-(length - len(opening)) // len(_ROW)))
    return (opening + _ROW * repeats)[:length]
