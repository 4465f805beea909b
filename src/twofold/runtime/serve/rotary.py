"""How fast rotary positions turn, as the configs of the families say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from twofold.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotary:
    """`base` is RoPE's theta. `factor` slows all turns (linear interpolation, Chen et al. 2023), or
    with `original_len` only the slow ones, as Llama 3.1 does: turns shorter than original_len /
    `high` stay, those longer than original_len / `low` slow down, between them it is blended."""

    base: float = 10_000.0
    factor: float = 1.0
    original_len: int | None = None
    low: float = 1.0
    high: float = 4.0


def rotary_of(config: Mapping[str, Any], *, at: str) -> Rotary:
    """From a Hugging Face config, in the spelling of transformers 4 or 5."""
    new = config.get("rope_parameters") or {}
    scaling = new or config.get("rope_scaling") or {}
    base = float(new.get("rope_theta") or config.get("rope_theta") or 10_000.0)
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if config.get("partial_rotary_factor") not in (None, 1, 1.0):
        raise InputError(
            f"only a part of the head turns: {config['partial_rotary_factor']}",
            at=f"{at}, partial_rotary_factor",
            help="serve it with another engine",
        )
    if kind == "default":
        return Rotary(base=base)
    if kind == "linear":
        return Rotary(base=base, factor=float(scaling["factor"]))
    if kind == "llama3":
        return Rotary(
            base=base,
            factor=float(scaling["factor"]),
            original_len=int(scaling["original_max_position_embeddings"]),
            low=float(scaling["low_freq_factor"]),
            high=float(scaling["high_freq_factor"]),
        )
    raise InputError(
        f"the rotary scaling '{kind}' is not known",
        at=f"{at}, rope_scaling",
        help="known are default, linear and llama3; serve it with another engine",
    )


def frequencies(head_dim: int, rotary: Rotary) -> Tensor:
    """Radians per position [D/2] (Su et al. 2021, equation 15)."""
    turns = rotary.base ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    if rotary.original_len is None:
        return turns / rotary.factor
    length = 2 * math.pi / turns
    slow = (rotary.original_len / length - rotary.low) / (rotary.high - rotary.low)
    kept = slow.clamp(0, 1)
    return (1 - kept) * turns / rotary.factor + kept * turns
