"""The FLOP of a step, as we count it, and as others do.

Ours are model FLOP: products forward and twice backward, causal attention counted as causal,
nothing for recomputation. Published rates use other conventions; time is compared, never them.
"""

from __future__ import annotations

from twofold.model import (
    Model,
    forward_flop,
    inference_flop_per_token,
    num_parameters,
    operator_table,
)


def counted_flop_per_step(
    model: Model, seq_len: int, global_batch: int, convention: str = ""
) -> float:
    """FLOP of one step by the convention that `convention` describes in words, as published
    tables do: attention full ("full", "non-causal", "not halved", Megatron's 96 B s l h^2 form)
    or causal, and full recomputation included ("incl. recompute": a third more) or not.
    """
    text = convention.lower()
    tokens = float(global_batch * seq_len)
    if "8*params" in text:
        return 8.0 * num_parameters(model) * tokens
    flop = 3.0 * inference_flop_per_token(model, seq_len) * tokens
    hardware = "hardware flop" in text or "incl. recompute" in text or "incl. full" in text
    if (
        "full (non-causal)" in text
        or "non-causal" in text
        or "96*b" in text
        or "not halved" in text
    ):
        flop += tokens * _masked_flop_per_token(model, seq_len)
    return flop * (4.0 / 3.0 if hardware else 1.0)


def _masked_flop_per_token(model: Model, seq_len: int) -> float:
    """What counting attention over all pairs adds to counting the attended ones."""
    extra = 0.0
    for row in operator_table(model):
        if row.kind == "attention":
            whole = 4.0 * row.batch.at(seq_len, seq_len) * seq_len * seq_len * row.k.at(1, 1)
            extra += row.repeat * (whole - forward_flop(row, seq_len, seq_len))
    return 3.0 * extra / seq_len
