"""How much more than its live bytes a process holds, from one small network's growth."""

from __future__ import annotations

import numpy as np

from twofold.calibrate.rows import Row
from twofold.model import Model, num_parameters, operator_table
from twofold.perf import memory

_MOST = 4.0


def heap_factor(row: Row) -> float:
    """(peak - base - weights - moments) / (activations + transients + gradients), at least 1.

    Weights and moments are allocated once and leave no holes; the rest comes and goes in every
    step. The network is GPT-2's block with AdamW in fp32, as `runtime.probe.heap` runs it.
    """
    model = Model(
        name="heap",
        layers=row["layers"],
        hidden=row["hidden"],
        heads=row["heads"],
        kv_heads=row["heads"],
        ffn=4 * row["hidden"],
        vocab=row["vocab"],
        max_seq_len=row["seq"],
    )
    rows = operator_table(model)
    tokens = np.array([float(row["batch"] * row["seq"])])
    held = [
        of(rows, tokens, row["seq"], precision="fp32", level=row["level"], attention="sdpa")[0]
        for of in (memory.saved_bytes, memory.working_bytes)
    ]
    weights = memory.parameter_bytes(num_parameters(model))
    live = float(sum(held)) + weights
    fixed = row["base_memory_bytes"] + weights + memory.optimizer_bytes(rows, "adamw")
    return min(_MOST, max(1.0, float(row["peak_memory_bytes"] - fixed) / live))
