"""Models and workloads of the sizes that a CPU trains in minutes, for tests of the physics."""

from __future__ import annotations

from typing import Any

from twofold.model import Model
from twofold.workload import Recipe, Train


def gpt2_model(**changes: Any) -> Model:
    fields: dict[str, Any] = {
        "name": "gpt2-tiny", "layers": 4, "hidden": 128, "heads": 2, "kv_heads": 2, "ffn": 512,
        "vocab": 256, "max_seq_len": 4096,
    }  # fmt: skip
    return Model(**(fields | changes))


def modern_model(**changes: Any) -> Model:
    fields: dict[str, Any] = {
        "name": "modern-tiny", "norm": "rmsnorm", "activation": "relu2", "position": "rotary",
        "qk_norm": True, "bias": False, "tied_embeddings": False, "value_embeddings": 2,
        "logit_softcap": 15.0,
    }  # fmt: skip
    return gpt2_model(**(fields | changes))


def train(
    *, tokens: int = 409_600, seq_len: int = 128, global_batch: int = 8, optimizer: Any = "adamw"
) -> Train:
    recipe = Recipe(
        optimizer=optimizer,
        learning_rate=2e-3,
        adam_learning_rate=5e-3 if optimizer == "muon" else None,
        global_batch=global_batch,
    )
    return Train(text="stdlib", tokens=tokens, seq_len=seq_len, recipe=recipe)
