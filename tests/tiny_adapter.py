"""A random LoRA adapter for the tiny model, as peft writes them."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from deployments.tiny_model import HEAD_DIM, HEADS, HIDDEN, KV_HEADS, LAYERS

RANK = 8
ROWS = {"q_proj": HEADS * HEAD_DIM, "v_proj": KV_HEADS * HEAD_DIM}


def write_tiny_adapter(folder: Path, seed: int) -> Path:
    """Weights large enough that greedy answers differ from the model's own, and between seeds."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {}
    for layer in range(LAYERS):
        for module, rows in ROWS.items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            weights[f"{name}.lora_A.weight"] = rng.standard_normal((RANK, HIDDEN), np.float32)
            weights[f"{name}.lora_B.weight"] = rng.standard_normal((rows, RANK), np.float32)
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tiny",
        "r": RANK,
        "lora_alpha": RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": list(ROWS),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder
