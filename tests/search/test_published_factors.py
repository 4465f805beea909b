"""Factors that others measured between two plans, machines or models lie in our intervals.

The efficiencies were fitted on published runs, the open ones here among them; the factor is not
what was fitted. Plans are as published; what a source does not say is said here.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.search.machines import A100, B200, GB200, H100, H800, document
from twofold.document import PlanDocument
from twofold.model import Experts, LatentAttention, Model
from twofold.plan import Plan
from twofold.search.explanation import Comparison, compare

MODERN: dict[str, Any] = {
    "norm": "rmsnorm", "activation": "swiglu", "position": "rotary", "bias": False,
    "tied_embeddings": False,
}  # fmt: skip
GPT_175B = Model(
    name="gpt-175b", layers=96, hidden=12288, heads=96, kv_heads=96, ffn=49152, vocab=51200,
    max_seq_len=2048,
)  # fmt: skip
LLAMA_8B = Model(
    name="llama-3-8b", layers=32, hidden=4096, heads=32, kv_heads=8, ffn=14336, vocab=128256,
    max_seq_len=8192, **MODERN,
)  # fmt: skip
LLAMA_70B = Model(
    name="llama-3-70b", layers=80, hidden=8192, heads=64, kv_heads=8, ffn=28672, vocab=128256,
    max_seq_len=8192, **MODERN,
)  # fmt: skip
QWEN_235B = Model(
    name="qwen3-235b-a22b", layers=94, hidden=4096, heads=64, kv_heads=4, head_dim=128,
    ffn=12288, vocab=151936, max_seq_len=40960, qk_norm=True, qk_norm_weights=True,
    experts=Experts(count=128, top_k=8, ffn=1536), **MODERN,
)  # fmt: skip
DEEPSEEK_67B = Model(
    name="deepseek-67b", layers=95, hidden=8192, heads=64, kv_heads=8, ffn=22016, vocab=102400,
    max_seq_len=4096, **MODERN,
)  # fmt: skip
_LATENT = LatentAttention(query_rank=1536, kv_rank=512, nope_dim=128, rope_dim=64, value_dim=128)
DEEPSEEK_V2 = Model(
    name="deepseek-v2", layers=60, hidden=5120, heads=128, kv_heads=128, ffn=12288, vocab=102400,
    max_seq_len=4096, latent=_LATENT,
    experts=Experts(count=160, top_k=6, ffn=1536, shared_ffn=3072, first_layer=1), **MODERN,
)  # fmt: skip
DEEPSEEK_V3 = Model(
    name="deepseek-v3", layers=61, hidden=7168, heads=128, kv_heads=128, ffn=18432, vocab=129280,
    max_seq_len=4096, latent=_LATENT,
    experts=Experts(
        count=256, top_k=8, ffn=2048, shared_ffn=2048, first_layer=3, router_bias=True
    ), **MODERN,
)  # fmt: skip


def _check(comparison: Comparison) -> dict[str, float]:
    """What holds of every comparison; its log shares."""
    time = comparison.time
    shares = {cause.name: cause.log_share for cause in time.causes}
    assert math.fsum(shares.values()) == pytest.approx(math.log(time.ratio), abs=1e-9)
    assert abs(time.residual) < 1e-9
    assert 0 < time.num_orders <= time.num_possible
    assert comparison.low < time.ratio < comparison.high
    assert comparison.published_holds, (comparison.low, comparison.published, comparison.high)
    return shares


def _table_5(recompute: Any, *, sequence_parallel: bool) -> PlanDocument:
    plan = Plan(
        tensor_degree=8, pipeline_degree=8, virtual_stages=3, schedule="interleaved",
        micro_batch=1, precision="fp16", attention="explicit", recompute=recompute,
        sequence_parallel=sequence_parallel,
    )  # fmt: skip
    return document(GPT_175B, A100, plan, global_batch=64, seq_len=2048)


def test_full_against_selective_recompute() -> None:
    """Korthikanti et al. 2023, arXiv 2205.05198, table 5, 175B on 64 A100: 18.13 s with full
    recomputation, 13.75 s with selective and sequence parallelism."""
    factor = 13.75 / 18.13
    shares = _check(
        compare(
            _table_5("full", sequence_parallel=False),
            _table_5("selective", sequence_parallel=True),
            date_a="2022-05",
            date_b="2022-05",
            published=(factor, factor),
        )
    )
    assert set(shares) == {"recompute", "parallel layout"}
    assert shares["recompute"] < 4 * shares["parallel layout"] < 0


_BRIDGE_8B = {
    "h100": document(
        LLAMA_8B, H100, Plan(data_degree=8, zero_stage=3, micro_batch=1, precision="fp8"),
        global_batch=128, seq_len=8192,
    ),
    "b200": document(
        LLAMA_8B, B200, Plan(data_degree=8, zero_stage=1, micro_batch=2, precision="fp8"),
        global_batch=128, seq_len=8192,
    ),
}  # fmt: skip


def _bridge_70b(node: Any, **plan: Any) -> PlanDocument:
    return document(LLAMA_70B, node, Plan(**plan), global_batch=256, seq_len=8192)


_H100_70B = _bridge_70b(
    H100, data_degree=2, tensor_degree=4, pipeline_degree=8, virtual_stages=5,
    schedule="interleaved", sequence_parallel=True, zero_stage=1, micro_batch=1, precision="fp8",
)  # fmt: skip
_GB200_70B_FP8 = _bridge_70b(
    GB200, data_degree=64, zero_stage=3, micro_batch=2, precision="fp8"
)  # fmt: skip
_GB200_70B_FP4 = _bridge_70b(
    GB200, data_degree=8, tensor_degree=2, pipeline_degree=4, virtual_stages=5,
    schedule="interleaved", sequence_parallel=True, zero_stage=1, micro_batch=1,
    precision="nvfp4",
)  # fmt: skip


def test_b200_against_h100_in_one_precision() -> None:
    """NVIDIA Megatron-Bridge performance summary, container 25.11 (2025-11): Llama 3 8B on 8
    devices, fp8, 9.070 s a step on H100 and 4.280 s on B200."""
    factor = 4.280 / 9.0701
    comparison = compare(
        _BRIDGE_8B["h100"],
        _BRIDGE_8B["b200"],
        date_a="2025-11",
        date_b="2025-11",
        published=(factor, factor),
    )
    shares = _check(comparison)
    assert "precision" not in shares
    assert min(shares, key=lambda name: shares[name]) == "chip rate"
    assert shares["software age"] > 0
    assert comparison.left_out == ()


@pytest.mark.parametrize(
    ("b", "seconds", "new_precision"),
    [(_GB200_70B_FP8, 7.7576, False), (_GB200_70B_FP4, 6.7368, True)],
    ids=["fp8", "nvfp4"],
)
def test_blackwell_against_hopper_with_and_without_the_precision_change(
    b: PlanDocument, seconds: float, new_precision: bool
) -> None:
    """The same summary, container 26.04.01 (2026-05): Llama 3 70B on 64 devices, 19.69 s a step
    on H100 in fp8, on GB200 7.758 s in fp8 and 6.737 s in nvfp4."""
    factor = seconds / 19.6923
    comparison = compare(
        _H100_70B, b, date_a="2026-05", date_b="2026-05", published=(factor, factor)
    )
    shares = _check(comparison)
    assert ("precision" in shares) == new_precision
    if new_precision:
        assert shares["precision"] < 0
        reasons = {one.reason for one in comparison.left_out}
        assert any("nvfp4" in reason for reason in reasons)
        assert all("chip rate" not in one.changed for one in comparison.left_out)


_QWEN = Plan(
    data_degree=16, tensor_degree=2, pipeline_degree=8, virtual_stages=4, expert_degree=32,
    schedule="interleaved", sequence_parallel=True, zero_stage=1, micro_batch=1, precision="fp8",
)  # fmt: skip


def test_experts_against_a_dense_model_of_more_active_parameters() -> None:
    """The same summary, container 25.11: tokens a second and H100 in fp8, 1602 of Llama 3 70B
    (64 devices, batch 128) and 1575 of Qwen3 235B-A22B (256 devices, batch 2048)."""
    dense = document(LLAMA_70B, H100, _H100_70B.plan, global_batch=128, seq_len=8192)
    sparse = document(QWEN_235B, H100, _QWEN, global_batch=2048, seq_len=4096)
    factor = 1602 / 1575 * 64 / 256
    shares = _check(
        compare(dense, sparse, date_a="2025-11", date_b="2025-11", published=(factor, factor))
    )
    assert min(shares, key=lambda name: shares[name]) == "devices"


@pytest.mark.parametrize(
    ("model", "precision", "expert_degree", "global_batch", "hours", "date", "cause"),
    [
        (DEEPSEEK_V2, "bf16", 8, 9216, 172.8, "2024-05", "model"),
        (DEEPSEEK_V3, "fp8", 64, 15360, 180.0, "2024-12", "precision"),
    ],
    ids=["V2", "V3"],
)
def test_deepseek_experts_against_deepseek_dense(
    model: Model,
    precision: Any,
    expert_degree: int,
    global_batch: int,
    hours: float,
    date: str,
    cause: str,
) -> None:
    """Thousand H800 hours a trillion tokens: 300.6 of the dense 67B and 172.8 of V2 (DeepSeek-V2,
    arXiv 2405.04434, section 3.2.3), 180 of V3 in fp8 (arXiv 2412.19437, section 1); none of
    them was fitted on. Degrees of V2 and V3 are published; those of the dense model, and 2,048
    devices for all, are assumed; ZB-H1 stands for their schedules, and what V2 and V3 recompute to
    fit is left out, so that both are flagged as too large."""
    dense = document(
        DEEPSEEK_67B, H800,
        Plan(data_degree=128, tensor_degree=4, pipeline_degree=4, sequence_parallel=True,
             zero_stage=1, micro_batch=1, precision="bf16"),
        global_batch=4608, seq_len=4096,
    )  # fmt: skip
    sparse = document(
        model, H800,
        Plan(data_degree=128, pipeline_degree=16, expert_degree=expert_degree, zero_stage=1,
             schedule="zb-h1", micro_batch=1, precision=precision),
        global_batch=global_batch, seq_len=4096,
    )  # fmt: skip
    factor = hours / 300.6
    comparison = compare(dense, sparse, date_a="2023-12", date_b=date, published=(factor, factor))
    shares = _check(comparison)
    assert min(shares, key=lambda name: shares[name]) == cause
    assert comparison.left_out == ()
    assert not comparison.b.fits
