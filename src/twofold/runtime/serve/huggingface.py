"""Weights in Hugging Face layout: safetensors of Llama, Mistral, Qwen 2 and 3, Mixtral and kin."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from twofold.errors import InputError
from twofold.model import Model
from twofold.runtime.serve.network import Block, HeadNorm, PagedAttention, ServingNetwork
from twofold.runtime.train.network.experts import ExpertFeedForward

FAMILIES = ("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe")

_Read = Callable[[str], Tensor]


def check_family(config: Mapping[str, Any], *, at: str) -> None:
    """InputError where the layout of the weights, or what they mean, is not known."""
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise InputError(
            f"weights of the family '{kind}' cannot be read",
            at=f"{at}, model_type",
            help="known are " + ", ".join(FAMILIES) + "; serve it with another engine",
        )
    if kind == "qwen3_moe" and not config.get("norm_topk_prob", False):
        raise InputError(
            "the weights of the chosen experts do not add up to 1",
            at=f"{at}, norm_topk_prob",
            help="serve it with another engine",
        )


def load_safetensors(network: ServingNetwork, folder: Path, config: Mapping[str, Any]) -> None:
    """Fill the network in place, each weight in the precision the network has."""
    with ExitStack() as stack, torch.no_grad():
        read = _reader(folder, stack)
        mixtral = config.get("model_type") == "mixtral"
        _copy(network.embedding.weight, "model.embed_tokens.weight", read)
        for layer, block in network.blocks.items():
            assert isinstance(block, Block)
            start = f"model.layers.{layer}"
            _copy(
                block.attention_norm.get_parameter("weight"),
                f"{start}.input_layernorm.weight",
                read,
            )
            _copy(
                block.mlp_norm.get_parameter("weight"),
                f"{start}.post_attention_layernorm.weight",
                read,
            )
            _load_attention(block.attention, f"{start}.self_attn", network.model, read)
            mlp = f"{start}.block_sparse_moe" if mixtral else f"{start}.mlp"
            if isinstance(block.mlp, ExpertFeedForward):
                _load_experts(block.mlp, mlp, ("w1", "w3", "w2") if mixtral else _DENSE, read)
            else:
                for module, name in zip(_parts(block.mlp), _DENSE, strict=True):
                    _load_linear(module, f"{mlp}.{name}", read)
        _copy(network.norm.get_parameter("weight"), "model.norm.weight", read)
        if not network.model.tied_embeddings:
            _copy(network.head.weight, "lm_head.weight", read)


_DENSE = ("gate_proj", "up_proj", "down_proj")


def _parts(mlp: Any) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    return mlp.gate, mlp.up, mlp.down


def _load_attention(attention: PagedAttention, start: str, model: Model, read: _Read) -> None:
    """Query rows of a key/value head, then its key's, then its value's."""
    for part in ("weight", "bias"):
        target = getattr(attention.query_key_value, part)
        if target is None:
            continue
        pieces = [
            read(f"{start}.{name}_proj.{part}").unflatten(0, (model.kv_heads, -1)) for name in "qkv"
        ]
        _fill(target, torch.cat(pieces, dim=1).flatten(0, 1), f"{start}.q_proj.{part}")
    _load_linear(attention.output, f"{start}.o_proj", read)
    norm = attention.head_norm
    if isinstance(norm, HeadNorm) and norm.weight is not None:
        query, key = read(f"{start}.q_norm.weight"), read(f"{start}.k_norm.weight")
        norm.weight[:-1] = query
        norm.weight[-1] = key


def _load_experts(
    experts: ExpertFeedForward, start: str, names: tuple[str, str, str], read: _Read
) -> None:
    _copy(experts.router.weight, f"{start}.gate.weight", read)
    assert experts.gate is not None
    for stack, name in zip((experts.gate, experts.up, experts.down), names, strict=True):
        for index, weight in enumerate(stack.weight):
            _copy(weight, f"{start}.experts.{index}.{name}.weight", read)


def _load_linear(linear: nn.Linear, start: str, read: _Read) -> None:
    _copy(linear.weight, f"{start}.weight", read)
    if linear.bias is not None:
        _copy(linear.bias, f"{start}.bias", read)


def _copy(target: Tensor, name: str, read: _Read) -> None:
    _fill(target, read(name), name)


def _fill(target: Tensor, value: Tensor, name: str) -> None:
    if target.shape != value.shape:
        raise InputError(
            f"'{name}' is {list(value.shape)} and the plan's model has {list(target.shape)}",
            at="weights",
            help="plan again from the config.json beside the weights",
        )
    target.copy_(value)


def _reader(folder: Path, stack: ExitStack) -> _Read:
    """Tensors by name from all files of the folder, mapped into memory."""
    from safetensors import SafetensorError, safe_open

    paths = sorted(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        named = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        paths = [folder / name for name in sorted(set(named))]
    if not paths:
        raise InputError(
            "the folder holds no safetensors", at=str(folder), help="name the model's folder"
        )
    places: dict[str, Any] = {}
    for path in paths:
        try:
            opened = stack.enter_context(safe_open(path, framework="pt"))
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"the weights cannot be read: {error}", at=str(path), help="fetch the file again"
            ) from error
        places |= dict.fromkeys(opened.keys(), opened)

    def read(name: str) -> Tensor:
        if name not in places:
            raise InputError(
                f"there is no tensor '{name}'",
                at=str(folder),
                help="plan again from the config.json beside the weights",
            )
        tensor: Tensor = places[name].get_tensor(name)
        return tensor

    return read
