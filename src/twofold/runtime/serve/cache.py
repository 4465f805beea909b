"""The paged cache of keys and values, and how many blocks of it fit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from twofold.errors import EnvironmentLack
from twofold.host.limits import available_memory_bytes
from twofold.model import Model
from twofold.serving_plan import ServingPlan

_BUFFER_FRACTION = 0.05
"""Of the memory: what a step's own tensors take at most, left out of the cache."""


@dataclass(frozen=True, slots=True)
class KvCache:
    """`keys` and `values` [layers, blocks, block_tokens, kv_heads, head_dim].

    Zeros at first: a hidden key counts nothing, but not-a-number times nothing would stay.
    """

    keys: Tensor
    values: Tensor

    @staticmethod
    def make(
        model: Model, num_blocks: int, block_tokens: int, dtype: torch.dtype, device: torch.device
    ) -> KvCache:
        shape = (model.layers, num_blocks, block_tokens, model.kv_heads, model.head_size)
        return KvCache(
            torch.zeros(shape, dtype=dtype, device=device),
            torch.zeros(shape, dtype=dtype, device=device),
        )


def block_bytes(model: Model, block_tokens: int, dtype: torch.dtype) -> int:
    return 2 * model.layers * block_tokens * model.kv_heads * model.head_size * dtype.itemsize


def num_blocks_that_fit(
    model: Model, plan: ServingPlan, dtype: torch.dtype, device: torch.device
) -> int:
    """The plan's, or as many as fit beside the loaded weights, though no more than the most
    sequences at the greatest length need. EnvironmentLack where they do not fit."""
    wanted = plan.num_blocks or plan.max_num_seqs * -(-model.max_seq_len // plan.block_tokens)
    left_bytes = _left_bytes(plan.memory_fraction, device)
    if left_bytes is None:
        return wanted
    fitting = int(left_bytes // block_bytes(model, plan.block_tokens, dtype))
    if plan.num_blocks > fitting or fitting < 1:
        raise EnvironmentLack(
            f"{plan.num_blocks or 1} blocks of {plan.block_tokens} tokens do not fit: there is "
            f"room for {max(0, fitting)}",
            at="plan, num_blocks",
            help="free some memory, or plan with fewer blocks",
        )
    return min(wanted, fitting)


def _left_bytes(memory_fraction: float, device: torch.device) -> float | None:
    """Of the device beside the weights; of the host what is free now. None where unknown."""
    if device.type == "cuda":
        free_bytes, all_bytes = torch.cuda.mem_get_info(device)
        return memory_fraction * all_bytes - (all_bytes - free_bytes) - _BUFFER_FRACTION * all_bytes
    available_bytes = available_memory_bytes()
    return (
        None
        if available_bytes is None
        else (memory_fraction - _BUFFER_FRACTION) * (available_bytes)
    )
