"""Weights in Hugging Face layout: safetensors of Llama, Mistral, Qwen 2 and 3, Mixtral and kin."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from twofold.errors import InputError
from twofold.model import Model
from twofold.runtime.serve.folder import read_mapping
from twofold.runtime.serve.network import Block, HeadNorm, PagedAttention, ServingNetwork
from twofold.runtime.train.network.experts import ExpertFeedForward

FAMILIES = ("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe")

_Read = Callable[[str], Tensor]

_QUANTISED = ("quantization_config", "compression_config")
_PLAIN = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""What a weight may be stored in. Anything else is a number of a quantisation, which means nothing
without its scale."""
_NO_WEIGHT = ("rotary_emb.inv_freq", "attention.masked_bias")
"""Ends of names that older files carry and that follow from the config."""


def check_config(config: Mapping[str, Any], *, at: str) -> None:
    """InputError where the layout of the weights, or what they mean, is not known."""
    for key in _QUANTISED:
        if config.get(key) is not None:
            raise InputError(
                f"the weights are quantised ({_method(config[key])}), which is not read here",
                at=f"{at}, {key}",
                help="name a folder with the weights before quantisation, or serve this one with "
                "another engine: twofold serve --vllm prints its command",
            )
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


def _method(settings: Any) -> str:
    """As the config names it: `fp8`, `gptq`, `awq`, `bitsandbytes` ..."""
    named = settings.get("quant_method") if isinstance(settings, Mapping) else None
    return str(named or "by a method that it does not name")


def load_safetensors(network: ServingNetwork, folder: Path, config: Mapping[str, Any]) -> None:
    """Fill the network in place, each weight in the precision the network has. InputError where a
    tensor lacks, or one is there that the network has no place for."""
    with ExitStack() as stack, torch.no_grad():
        read = _Tensors(folder, stack)
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
        read.refuse_rest(tied=network.model.tied_embeddings)


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


class _Tensors:
    """Tensors by name from all files of the folder, mapped into memory."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        from safetensors import safe_open

        self._folder = folder
        self._places: dict[str, tuple[Path, Any]] = {}
        for path in _files(folder):
            opened = _read_or_refuse(path, partial(safe_open, path, framework="pt"))
            stack.enter_context(opened)
            self._places |= dict.fromkeys(opened.keys(), (path, opened))
        self._left = set(self._places)

    def __call__(self, name: str) -> Tensor:
        if name not in self._places:
            raise InputError(
                f"there is no tensor '{name}'",
                at=str(self._folder),
                help="plan again from the config.json beside the weights",
            )
        self._left.discard(name)
        path, opened = self._places[name]
        tensor: Tensor = _read_or_refuse(path, partial(opened.get_tensor, name))
        if tensor.dtype not in _PLAIN:
            raise InputError(
                f"'{name}' is stored in {str(tensor.dtype).removeprefix('torch.')}: quantised "
                "weights are not read here",
                at=str(path),
                help="name a folder with weights in float32, bfloat16 or float16, or serve this "
                "one with another engine: twofold serve --vllm prints its command",
            )
        return tensor

    def refuse_rest(self, *, tied: bool) -> None:
        """A scale, a bias or a layer that is not applied would change every answer."""
        rest = sorted(name for name in self._left if not name.endswith(_NO_WEIGHT))
        rest = [name for name in rest if not (tied and name == "lm_head.weight")]
        if rest:
            raise InputError(
                f"the plan's model has no place for '{rest[0]}'"
                + (f" and {len(rest) - 1} more tensors" if len(rest) > 1 else ""),
                at=str(self._places[rest[0]][0]),
                help="plan again from the config.json beside the weights; if it is as it was, "
                "serve it with another engine",
            )


def _files(folder: Path) -> list[Path]:
    """Those that the index names, else the one of the usual name, else all."""
    index, whole = folder / "model.safetensors.index.json", folder / "model.safetensors"
    mapping = read_mapping(index)
    if mapping is None:
        paths = [whole] if whole.is_file() else sorted(folder.glob("*.safetensors"))
    else:
        named = mapping.get("weight_map")
        if not isinstance(named, dict) or not all(isinstance(n, str) for n in named.values()):
            raise InputError(
                "the index does not name a file for each tensor",
                at=f"{index}, weight_map",
                help="fetch the file again",
            )
        paths = [folder / name for name in sorted(set(named.values()))]
    if not paths:
        raise InputError(
            "the folder holds no safetensors", at=str(folder), help="name the model's folder"
        )
    return paths


def _read_or_refuse(path: Path, read: Callable[[], Any]) -> Any:
    from safetensors import SafetensorError

    try:
        return read()
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(
            f"the weights cannot be read: {error}", at=str(path), help="fetch the file again"
        ) from error
