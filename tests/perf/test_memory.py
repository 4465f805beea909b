from __future__ import annotations

import numpy as np
import pytest

from tests.workloads import gpt2_model, modern_model
from twofold.model import num_parameters, operator_table
from twofold.perf import memory

TOKENS = np.array([512.0, 1024.0])


def test_adamw_keeps_two_moments_and_muon_one_for_hidden_matrices() -> None:
    model = gpt2_model()
    rows = operator_table(model)
    hidden = model.layers * 12 * model.hidden**2
    adamw = memory.optimizer_bytes(rows, "adamw")
    assert adamw == 8 * num_parameters(model)
    assert adamw - memory.optimizer_bytes(rows, "muon") == 4 * hidden


def test_only_bf16_keeps_copies_of_weights() -> None:
    model = gpt2_model()
    rows = operator_table(model)
    weights = model.layers * 12 * model.hidden**2 + model.hidden * model.vocab
    assert memory.cast_bytes(rows, "bf16") == 2 * weights
    assert memory.cast_bytes(rows, "fp32") == 0


@pytest.mark.parametrize("level", ["none", "full"])
@pytest.mark.parametrize("attention", ["sdpa", "explicit"])
def test_activations_are_proportional_to_tokens_at_a_sequence(level: str, attention: str) -> None:
    rows = operator_table(modern_model())
    few, many = memory.saved_bytes(
        rows, TOKENS, 128, precision="fp32", level=level, attention=attention
    )
    assert many == pytest.approx(2 * few)


def test_recomputing_needs_room_for_one_block_at_work() -> None:
    rows = operator_table(gpt2_model())
    working = {
        level: memory.working_bytes(
            rows, TOKENS, 128, precision="fp32", level=level, attention="sdpa"
        )[0]
        for level in ("none", "full")
    }
    kept = memory.saved_bytes(rows, TOKENS, 128, precision="fp32", level="none", attention="sdpa")
    block = working["full"] - working["none"]
    assert 0.2 * kept[0] < block < 0.3 * kept[0]
