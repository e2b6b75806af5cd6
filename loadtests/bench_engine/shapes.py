"""Models of real sizes, without their weights: what a step costs depends on shapes alone.

Each is a ``config.json`` written into a folder of its own; vLLM fills it with dummy weights. So
nothing is downloaded. ``tiny`` is the model that tests and demos serve, with its own weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.tiny_model import ensure_tiny_model

FOLDER = Path(".local/models")


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama's dimensions."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    dtype: str = "bfloat16"
    tied: bool = False

    def config(self) -> dict[str, Any]:
        """Return it as transformers write it."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.hidden // self.heads,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 131_072,
            "rope_theta": 500_000.0,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": self.tied,
            "torch_dtype": self.dtype,
        }


TINY = "tiny"
SHAPES = {
    "100m": Shape(768, 2048, 12, 12, 4, 32_000, dtype="float32"),
    "1b": Shape(2048, 8192, 16, 32, 8, 128_256, tied=True),
    "8b": Shape(4096, 14_336, 32, 32, 8, 128_256),
}


def model_folder(name: str) -> tuple[Path, str]:
    """Return the folder of a shape (made if need be) and how vLLM should load it."""
    if name == TINY:
        return ensure_tiny_model(), "auto"
    folder = FOLDER.resolve() / f"shape-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(SHAPES[name].config(), indent=1))
    return folder, "dummy"
