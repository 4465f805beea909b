"""The FLOP of a step, as we count it, and as others do.

Ours are model FLOP: products forward and twice backward, causal attention counted as causal,
nothing for recomputation. Published rates use other conventions; time is compared, never them.
"""

from __future__ import annotations

from twofold.model import (
    Model,
    attended_keys,
    forward_flop,
    num_parameters,
    operator_table,
)


def counted_flop_per_step(
    model: Model, seq_len: int, global_batch: int, convention: str = ""
) -> float:
    """FLOP of one step by the convention that `convention` describes in words, as published
    tables do: attention full ("full", "non-causal", "not halved", Megatron's 96 B s l h^2 form)
    or causal, and full recomputation included ("incl. recompute": a third more of the blocks,
    which alone are run again) or not.
    """
    text = convention.lower()
    tokens = float(global_batch * seq_len)
    if "8*params" in text:
        return 8.0 * num_parameters(model) * tokens
    masked = (
        "full (non-causal)" in text
        or "non-causal" in text
        or "96*b" in text
        or "not halved" in text
    )
    hardware = "hardware flop" in text or "incl. recompute" in text or "incl. full" in text
    flop = 0.0
    for row in operator_table(model):
        once = forward_flop(row, seq_len, seq_len)
        if masked and row.kind == "attention":
            once *= row.n.at(1.0, seq_len) / attended_keys(row, seq_len)
        passes = 4.0 if hardware and row.segment == "block" else 3.0
        flop += passes * row.repeat * once
    return flop * tokens / seq_len
