"""Eight-bit weights: the nearest integers, and products that are those of the rounded weight."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from tests.runtime.serve.engines import GATED, GROUPED, make_network
from twofold.runtime.serve.int8 import (
    MOST_PACKED_ROWS,
    Int8Linear,
    quantise,
    with_int8_weights,
)


def test_a_weight_is_off_by_half_a_step_at_most() -> None:
    torch.manual_seed(0)
    weight = torch.randn(24, 40)
    integers, scale = quantise(weight)
    off = (integers.float() * scale[:, None] - weight).abs()
    assert bool((off <= scale[:, None] / 2 * 1.001).all())
    assert int(integers.abs().max()) == 127


@pytest.mark.parametrize("rows", [1, MOST_PACKED_ROWS, MOST_PACKED_ROWS + 1])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_that_of_the_rounded_weight(rows: int, bias: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    linear = nn.Linear(64, 48, bias=bias).to(dtype).requires_grad_(False)
    packed = Int8Linear(linear)
    hidden = torch.randn(rows, 64, dtype=dtype)
    rounded = packed.weight.float() * packed.scale.float()[:, None]
    expected = hidden.float() @ rounded.t()
    if bias:
        expected = expected + linear.bias.float()
    tolerance = 1e-4 if dtype == torch.float32 else 4e-2
    torch.testing.assert_close(packed(hidden).float(), expected, atol=tolerance, rtol=tolerance)


def test_all_products_are_replaced_but_a_shared_table() -> None:
    for model, packs_head in ((GROUPED, True), (GATED, False)):
        network = make_network(model)
        with_int8_weights(network)
        assert isinstance(network.head, Int8Linear) is packs_head
        kept = [m for m in network.modules() if isinstance(m, nn.Linear)]
        assert kept == ([] if packs_head else [network.head])
