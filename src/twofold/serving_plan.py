"""`ServingPlan`: how requests are answered, and on what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from twofold.errors import InputError
from twofold.plan import Effect, Precision

WeightPrecision = Literal["same", "int8", "int4", "fp8", "fp4"]
KvPrecision = Literal["same", "int8", "fp8"]
Batching = Literal["static", "continuous"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillPlan:
    """The machines that compute prompts, where others (the plan's own) decode.

    Keys and values go to the decoding machines over the link between the two pools.
    """

    pool: str
    replicas: int = 1
    tensor_degree: int = 1
    pipeline_degree: int = 1
    expert_degree: int = 1
    precision: Precision = "bf16"

    @property
    def num_devices(self) -> int:
        return self.replicas * self.tensor_degree * self.pipeline_degree


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingPlan:
    """`replicas` whole copies of the model, each on tensor x pipeline devices of `pool`.

    With `attention_data_degree` d, attention of a replica runs on d groups of its devices with a
    d-th of the sequences each, and only what follows is divided over all (DP attention);
    `expert_degree` of the devices divide the experts. Products run in `precision`; weights are
    stored as `weight_precision` and keys and values as `kv_precision` ("same": as the products).

    A step of a replica takes at most `max_num_seqs` sequences and `max_batched_tokens` tokens;
    with `chunked_prefill` a long prompt is taken in parts. `memory_fraction` of the usable memory
    is for weights, cache and buffers; `num_blocks` of `block_tokens` tokens hold keys and values
    (0: as many as fit). `prefill`: prompts are computed elsewhere. `threads` are CPU threads.
    """

    pool: str = "local"
    replicas: int = 1
    tensor_degree: int = 1
    pipeline_degree: int = 1
    attention_data_degree: int = 1
    expert_degree: int = 1
    precision: Precision = "bf16"
    weight_precision: WeightPrecision = "same"
    kv_precision: KvPrecision = "same"
    batching: Batching = "continuous"
    max_num_seqs: int = 256
    max_batched_tokens: int = 8192
    chunked_prefill: bool = True
    prefix_caching: bool = True
    block_tokens: int = 16
    num_blocks: int = 0
    memory_fraction: float = 0.9
    prefill: PrefillPlan | None = None
    threads: int = 1
    compile: bool = False

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise InputError(
                    f"{name} is {getattr(self, name)}", at=f"plan, {name}", help="use at least 1"
                )
        if self.num_blocks < 0:
            raise InputError(
                f"num_blocks is {self.num_blocks}",
                at="plan, num_blocks",
                help="use 0 for as many as fit, or a positive number",
            )
        if not 0 < self.memory_fraction <= 1:
            raise InputError(
                f"memory_fraction is {self.memory_fraction}",
                at="plan, memory_fraction",
                help="use a fraction such as 0.9",
            )
        if self.tensor_degree % self.attention_data_degree:
            raise InputError(
                f"{self.attention_data_degree} attention groups do not divide the tensor degree "
                f"{self.tensor_degree}",
                at="plan, attention_data_degree",
                help="use a divisor of the tensor degree",
            )

    @property
    def replica_devices(self) -> int:
        return self.tensor_degree * self.pipeline_degree

    @property
    def num_devices(self) -> int:
        """Those of both phases, where prompts are computed elsewhere."""
        decode = self.replicas * self.replica_devices
        return decode + (self.prefill.num_devices if self.prefill else 0)


_AT_LEAST_ONE = (
    "replicas",
    "tensor_degree",
    "pipeline_degree",
    "attention_data_degree",
    "expert_degree",
    "max_num_seqs",
    "max_batched_tokens",
    "block_tokens",
    "threads",
)

SERVING_LEVER_EFFECT: dict[str, Effect] = {
    "pool": "rounding",
    "replicas": "rounding",
    "tensor_degree": "rounding",
    "pipeline_degree": "rounding",
    "attention_data_degree": "rounding",
    "expert_degree": "rounding",
    "precision": "rounding",
    "weight_precision": "lossy",
    "kv_precision": "lossy",
    "batching": "rounding",
    "max_num_seqs": "rounding",
    "max_batched_tokens": "rounding",
    "chunked_prefill": "rounding",
    "prefix_caching": "rounding",
    "block_tokens": "rounding",
    "num_blocks": "rounding",
    "memory_fraction": "exact",
    "prefill": "rounding",
    "threads": "rounding",
    "compile": "rounding",
}
"""What each lever does to the logits: batch shapes change the last bits, so near ties may flip;
fewer bits of weights or cache are another function, judged by held-out loss."""
