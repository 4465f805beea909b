"""Layers split over tensor ranks (Shoeybi et al. 2019), activations between them by sequence.

A block's first products are split by their outputs and its last by their inputs, so that a rank
computes whole heads and whole channels and one sum an attention and one a feed-forward network
are all that is sent. With `sequence_parallel` (Korthikanti et al. 2022) those sums leave each
rank with S / t positions, on which norms and residuals work: [B, S/t, H] in place of [B, S, H].
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    ParallelStyle,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)

from twofold.runtime.train.network import Decoder
from twofold.runtime.train.network.feedforward import FeedForward


def split_layers(network: Decoder, mesh: DeviceMesh, *, sequence_parallel: bool) -> None:
    """Turn the weights of every layer into shards over `mesh`, in place.

    The logits that come out are this rank's part of the vocabulary: [B, S, V/t].
    """
    between = Shard(1) if sequence_parallel else Replicate()
    learned = network.positions is not None
    styles: dict[str, ParallelStyle] = {
        "embedding": RowwiseParallel(
            input_layouts=Replicate(), output_layouts=Replicate() if learned else between
        ),
        "head": ColwiseParallel(input_layouts=between),
    }
    for index, block in network.blocks.items():
        styles |= {
            f"blocks.{index}.attention.query_key_value": ColwiseParallel(input_layouts=between),
            f"blocks.{index}.attention.value_embedding": ColwiseParallel(),
            f"blocks.{index}.attention.output": RowwiseParallel(output_layouts=between),
        }
        if isinstance(block.mlp, FeedForward):
            styles |= {
                f"blocks.{index}.mlp": PrepareModuleInput(
                    input_layouts=between, desired_input_layouts=Replicate()
                ),
                f"blocks.{index}.mlp.up": ColwiseParallel(),
                f"blocks.{index}.mlp.gate": ColwiseParallel(),
                f"blocks.{index}.mlp.down": RowwiseParallel(output_layouts=between),
            }
        if sequence_parallel:
            styles |= {
                f"blocks.{index}.attention_norm": SequenceParallel(),
                f"blocks.{index}.mlp_norm": SequenceParallel(),
            }
    if sequence_parallel:
        styles["norm"] = SequenceParallel()
    for name, style in styles.items():
        if (module := _module(network, name)) is not None:
            parallelize_module(module, mesh, style)
    network.tie()
    if sequence_parallel and learned:
        first = next(iter(network.blocks.values()))
        first.register_forward_pre_hook(_cut_sequence(mesh))


def _module(network: nn.Module, name: str) -> nn.Module | None:
    """The submodule; None where this model or this part of it has none."""
    found: Any = network
    for part in name.split("."):
        found = getattr(found, part) if not isinstance(found, nn.ModuleDict) else found[part]
        if found is None:
            return None
    assert isinstance(found, nn.Module)
    return found


def _cut_sequence(mesh: DeviceMesh):  # type: ignore[no-untyped-def]
    """Learned positions are added to whole sequences; each rank goes on with its part."""

    def cut(_: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        hidden: Tensor = inputs[0]
        whole = DTensor.from_local(hidden, mesh, [Replicate()], run_check=False)
        return (whole.redistribute(placements=[Shard(1)]).to_local(), *inputs[1:])

    return cut
