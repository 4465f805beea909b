"""A `Model` as the `config.json` of a ready class of transformers: the inverse of the import."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from twofold.errors import InputError
from twofold.model import Model
from twofold.sources.huggingface import model_from_config

_ROTARY_BASE = 10000.0
LAYER_CLASSES = {
    "gpt2": "GPT2Block",
    "llama": "LlamaDecoderLayer",
    "mistral": "MistralDecoderLayer",
    "mixtral": "MixtralDecoderLayer",
    "qwen2": "Qwen2DecoderLayer",
    "qwen3": "Qwen3DecoderLayer",
    "qwen3_moe": "Qwen3MoeDecoderLayer",
}
"""The block of each family, which sharding wraps."""


def huggingface_config(model: Model, *, attention: str) -> dict[str, Any]:
    """What `AutoConfig` reads. InputError where no known class has exactly this shape.

    Every candidate is read back by the importer, and only an equal `Model` is taken.
    """
    differing: dict[str, list[str]] = {}
    for kind in LAYER_CLASSES:
        config = _gpt2(model) if kind == "gpt2" else _modern(model, kind)
        try:
            read = model_from_config(config, name=model.name)
        except InputError:
            continue
        different = _differing(read, model)
        if not different:
            return config | {"attn_implementation": attention}
        differing[kind] = different
    nearest = min(differing, key=lambda kind: len(differing[kind]))
    raise InputError(
        f"transformers has no ready class of the shape of '{model.name}': the nearest, {nearest}, "
        f"differs in {', '.join(differing[nearest])}",
        at=f"model '{model.name}'",
        help="run the plan with `twofold run`, or plan a model of one of the families "
        + ", ".join(LAYER_CLASSES),
    )


def _differing(a: Model, b: Model) -> list[str]:
    return [
        field.name for field in fields(Model) if _settled(a, field.name) != _settled(b, field.name)
    ]


def _settled(model: Model, name: str) -> Any:
    """Fields that only say where another comes from are compared by what they say."""
    if name == "head_dim":
        return model.head_size
    if name in ("qkv_bias", "output_bias", "mlp_bias"):
        value = getattr(model, name)
        return model.bias if value is None else value
    return None if name == "bias" else getattr(model, name)


def _gpt2(model: Model) -> dict[str, Any]:
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "n_layer": model.layers,
        "n_embd": model.hidden,
        "n_head": model.heads,
        "n_inner": model.ffn,
        "vocab_size": model.vocab,
        "n_positions": model.max_seq_len,
        "activation_function": "gelu_new",
        "tie_word_embeddings": model.tied_embeddings,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "bos_token_id": None,
        "eos_token_id": None,
    }


def _modern(model: Model, kind: str) -> dict[str, Any]:
    config: dict[str, Any] = {
        "model_type": kind,
        "num_hidden_layers": model.layers,
        "hidden_size": model.hidden,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "intermediate_size": model.ffn,
        "vocab_size": model.vocab,
        "max_position_embeddings": model.max_seq_len,
        "head_dim": model.head_size,
        "hidden_act": "silu",
        "tie_word_embeddings": model.tied_embeddings,
        "rope_parameters": {"rope_type": "default", "rope_theta": _ROTARY_BASE},
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if kind in ("llama", "qwen3", "qwen3_moe"):
        config["attention_bias"] = bool(_settled(model, "qkv_bias"))
    if kind == "llama":
        config["mlp_bias"] = bool(_settled(model, "mlp_bias"))
    if kind in ("mistral", "mixtral"):
        config["sliding_window"] = model.window
    if model.experts is not None and kind == "mixtral":
        config["num_local_experts"] = model.experts.count
        config["num_experts_per_tok"] = model.experts.top_k
    if model.experts is not None and kind == "qwen3_moe":
        config["num_experts"] = model.experts.count
        config["num_experts_per_tok"] = model.experts.top_k
        config["moe_intermediate_size"] = model.experts.ffn
        config["mlp_only_layers"] = list(range(model.experts.first_layer))
        config["decoder_sparse_step"] = model.experts.every
    return config
