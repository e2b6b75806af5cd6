"""Make a tiny random Llama: a real model folder that any vLLM can serve, in a second.

Demos, tests and load tests on a CPU need a model, not a good one. This one has 108,000 random
weights, and three properties that make measurements easy to read:

- **One byte is one token.** The vocabulary is the 256 bytes and a few special tokens, so a
  prompt of 100 ASCII characters costs 100 input tokens, and any UTF-8 text survives encoding
  and decoding. (A special token written out in a text, such as ``<|end|>``, becomes that token.)
- **One output token is one printable character**, so each streams as a chunk of its own;
  an arbitrary byte would wait for the rest of its UTF-8 character.
- **It never ends by itself.** Each answer is as long as ``max_tokens`` says.

The last two are built into the weights: coordinate 0 of every hidden state is a constant that no
layer writes to (`KEPT`), so the output head can read it as a bias, hugely negative for the
tokens never to be sampled.

The weights come from a seeded generator: the same folder on every machine.

    python -m deployments.tiny_model [--out DIR]
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

DEFAULT_PATH = Path(".local/models/tiny-llama")

# Raise this when the recipe changes: a folder made by another recipe is made again.
RECIPE = "fairlane tiny llama, recipe 1"
RECIPE_FILE = "recipe.txt"
SEED = 2024

LAYERS = 2
HIDDEN = 64
INTERMEDIATE = 128
HEADS = 2
KV_HEADS = 1
HEAD_DIM = 32  # the smallest that vLLM's CPU attention takes
MAX_POSITIONS = 32_768

BOS, EOS, PAD, END = "<|bos|>", "<|eos|>", "<|pad|>", "<|end|>"
ROLES = ("system", "user", "assistant", "tool")
SPECIAL_TOKENS = (BOS, EOS, PAD, END, *(f"<|{role}|>" for role in ROLES))
VOCABULARY = 256 + len(SPECIAL_TOKENS)

# A message costs its bytes and two tokens; the cue for the answer costs one.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

KEPT = 0
FORBIDDEN_BIAS = -1000.0
SAMPLED = [ord("\n"), *range(ord(" "), ord("~") + 1)]


class NotATinyModel(Exception):
    """The folder asked for holds something that this module did not make."""


def ensure_tiny_model(path: str | os.PathLike[str] = DEFAULT_PATH) -> Path:
    """Make the model in folder `path` unless it is there already; return its absolute path.

    Safe to call from several processes at once: the folder appears complete or not at all, and
    who comes second finds it.

    Raises:
        NotATinyModel: `path` exists, and not by our hand; it is left alone.
    """
    target = Path(path).resolve()
    if _is_current(target):
        return target
    if target.exists() and not (target / RECIPE_FILE).is_file():
        raise NotATinyModel(
            f"{target} exists and is not a tiny model made by Fairlane; "
            "name another folder, or remove that one"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tiny-llama-", dir=target.parent) as scratch:
        made = Path(scratch) / "new"
        made.mkdir()
        _write_model(made)
        if target.exists():  # by an older recipe
            os.replace(target, Path(scratch) / "old")
        try:
            os.rename(made, target)
        except OSError:
            if not _is_current(target):  # else: another process was faster
                raise
    return target


def byte_tokenizer() -> Tokenizer:
    """Return the tokenizer: token number b is byte b, special tokens follow from 256 up."""
    vocabulary = {character: byte for byte, character in enumerate(_byte_characters())}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS]
    )
    return tokenizer


def random_weights(seed: int = SEED) -> dict[str, np.ndarray]:
    """Return the weights by their names in a Llama checkpoint, float32, shapes (out, in)."""
    rng = np.random.default_rng(seed)

    def normal(rows: int, columns: int) -> np.ndarray:
        # Unit variance in, unit variance out.
        return rng.standard_normal((rows, columns), dtype=np.float32) / np.float32(columns**0.5)

    def residual(rows: int, columns: int) -> np.ndarray:
        weight = normal(rows, columns)
        weight[KEPT, :] = 0.0  # adds nothing to the kept coordinate
        return weight

    weights: dict[str, np.ndarray] = {}
    embedding = rng.standard_normal((VOCABULARY, HIDDEN), dtype=np.float32)
    embedding[:, KEPT] = 1.0
    weights["model.embed_tokens.weight"] = embedding
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        weights |= {
            f"{prefix}.input_layernorm.weight": np.ones(HIDDEN, dtype=np.float32),
            f"{prefix}.self_attn.q_proj.weight": normal(HEADS * HEAD_DIM, HIDDEN),
            f"{prefix}.self_attn.k_proj.weight": normal(KV_HEADS * HEAD_DIM, HIDDEN),
            f"{prefix}.self_attn.v_proj.weight": normal(KV_HEADS * HEAD_DIM, HIDDEN),
            f"{prefix}.self_attn.o_proj.weight": residual(HIDDEN, HEADS * HEAD_DIM),
            f"{prefix}.post_attention_layernorm.weight": np.ones(HIDDEN, dtype=np.float32),
            f"{prefix}.mlp.gate_proj.weight": normal(INTERMEDIATE, HIDDEN),
            f"{prefix}.mlp.up_proj.weight": normal(INTERMEDIATE, HIDDEN),
            f"{prefix}.mlp.down_proj.weight": residual(HIDDEN, INTERMEDIATE),
        }
    weights["model.norm.weight"] = np.ones(HIDDEN, dtype=np.float32)
    head = normal(VOCABULARY, HIDDEN)
    head[:, KEPT] = FORBIDDEN_BIAS
    head[SAMPLED, KEPT] = 0.0
    weights["lm_head.weight"] = head
    return weights


def _is_current(folder: Path) -> bool:
    """Say whether the folder holds the model of the present recipe."""
    try:
        return (folder / RECIPE_FILE).read_text() == RECIPE
    except (FileNotFoundError, NotADirectoryError):
        return False


def _write_model(folder: Path) -> None:
    """Write all files of a model folder, in the layout of the Hugging Face hub."""
    tokenizer = byte_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    weights = save(random_weights(), metadata={"format": "pt"})
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    for name, content in {
        "config.json": _config(tokenizer),
        "generation_config.json": _token_ids(tokenizer),
        "tokenizer_config.json": _tokenizer_config(),
    }.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    (folder / RECIPE_FILE).write_text(RECIPE)


def _config(tokenizer: Tokenizer) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "max_position_embeddings": MAX_POSITIONS,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": False,
        **_token_ids(tokenizer),
    }


def _token_ids(tokenizer: Tokenizer) -> dict[str, object]:
    return {
        "bos_token_id": tokenizer.token_to_id(BOS),
        "eos_token_id": tokenizer.token_to_id(EOS),
        "pad_token_id": tokenizer.token_to_id(PAD),
    }


def _tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "model_max_length": MAX_POSITIONS,
        "clean_up_tokenization_spaces": False,
    }


def _byte_characters() -> list[str]:
    """Return the character that stands for each byte in byte-level vocabularies (GPT-2's table).

    Printable Latin-1 bytes stand for themselves; the others take characters from U+0100 up.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


def main() -> None:
    """Make the model from the command line."""
    parser = argparse.ArgumentParser(description="Make the tiny random Llama.")
    parser.add_argument("--out", type=Path, default=DEFAULT_PATH, metavar="DIR")
    path = ensure_tiny_model(parser.parse_args().out)
    print(f"{path}: {sum(file.stat().st_size for file in path.iterdir()) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
