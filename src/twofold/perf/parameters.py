"""Who holds which parameters: counted once, from the operator table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from twofold.model import Operator
from twofold.perf.columns import ModelColumns
from twofold.perf.work import num_layers


def model_columns(
    rows: Sequence[Operator], num_rows: int, *, adapter_parameters: float | None = None
) -> ModelColumns:
    """The parameters of one model, for `num_rows` plans of it.

    With `adapter_parameters` (LoRA) only so many are trained. A tied head is counted as `tied`:
    a last stage that is not the first holds a copy of the table.
    """
    counts = {"dense": 0.0, "experts": 0.0, "input": 0.0, "output": 0.0}
    tied = 0.0
    for row in rows:
        size = float(row.parameters * row.repeat)
        if row.segment == "block":
            counts["experts" if "expert" in row.divided_by else "dense"] += size
        elif row.segment == "output":
            counts["output"] += size
            if row.kind == "gemm" and not row.tensors:
                tied += row.n.coefficient * row.k.coefficient
        else:
            counts["input"] += size
    total = sum(counts.values())
    trained = 1.0 if adapter_parameters is None else adapter_parameters / total
    one = np.ones(num_rows)
    return ModelColumns(
        dense=counts["dense"] * one,
        experts=counts["experts"] * one,
        input=counts["input"] * one,
        output=counts["output"] * one,
        tied=tied * one,
        layers=num_layers(rows) * one,
        trainable_fraction=trained * one,
    )
