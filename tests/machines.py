"""A calibrated machine made up for tests: round numbers, two threads, fp32 and bf16."""

from __future__ import annotations

from dataclasses import replace

from tests.fleets import figure
from twofold.fleet import (
    Accelerator,
    AttentionCurve,
    Curves,
    Fleet,
    GemmCurve,
    MemoryTier,
    Node,
    OpCurve,
    Pool,
)

VECTOR_OPS = (
    "layernorm", "rmsnorm", "head_rmsnorm", "rotary", "bias", "gelu", "relu2", "swiglu", "add",
    "softcap", "cross_entropy", "embedding",
)  # fmt: skip
UPDATE_OPS = (
    "adamw_loop", "adamw_foreach", "adamw_fused", "muon_update", "gradient_clip", "accumulate",
    "batch",
)  # fmt: skip
_SIZES = (1e3, 1e6)


def calibrated_fleet(
    *,
    fp32_flop_per_s: float = 8e10,
    bf16_flop_per_s: float = 1.6e11,
    vector_s: float = 2e-9,
    call_s: float = 5e-6,
    sdpa_product_s: float = 1e-10,
    explicit_product_s: float = 1.5e-10,
    bf16_attention_factor: float = 1.0,
    memory_bytes: float = 8e9,
    compiler: bool = True,
) -> Fleet:
    """Rates are those of one thread; a second adds 80 %. `bf16_attention_factor` slows attention
    in bf16 against fp32; `vector_s` is per element and `call_s` per call."""
    threads = (1, 2)
    rates = {"fp32": fp32_flop_per_s, "bf16": bf16_flop_per_s}
    gain = {1: 1.0, 2: 1.8}
    gemm = tuple(
        _gemm(op, precision, count, rate * gain[count])
        for op in ("linear", "orthogonalise")
        for precision, rate in rates.items()
        for count in threads
    )
    attention = tuple(
        _attention(kernel, precision, count, product_s * slower / gain[count])
        for kernel, product_s in (("sdpa", sdpa_product_s), ("explicit", explicit_product_s))
        for precision, slower in (("fp32", 1.0), ("bf16", bf16_attention_factor))
        for count in threads
    )
    ops = tuple(
        _op(op, precision, count, call_s, vector_s / gain[count], backward=op in VECTOR_OPS)
        for precision in rates
        for count in threads
        for op in (*VECTOR_OPS, *(UPDATE_OPS if precision == "fp32" else ()))
    )
    curves = Curves(
        framework="made up 1.0",
        gemm=gemm,
        attention=attention,
        ops=ops,
        scalars={
            "start_s": figure(3.0, "s"),
            "first_step_s": figure(0.1, "s"),
            "base_memory_bytes": figure(3e8, "B"),
            "heap_factor_none": figure(1.3, "1"),
            "heap_factor_full": figure(1.8, "1"),
            "compiler_available": figure(float(compiler), "1"),
        },
    )
    processor = Accelerator(
        name="made-up-cpu",
        kind="cpu",
        memory=MemoryTier(
            name="main",
            usable_bytes=figure(memory_bytes, "B"),
            bandwidth_bytes_per_s=figure(2e10, "B/s"),
        ),
        flop_per_s={p: figure(rate * gain[2], "FLOP/s") for p, rate in rates.items()},
        threads=2,
        power_idle_w=figure(10.0, "W"),
        power_max_w=figure(30.0, "W"),
        curves=curves,
    )
    node = Node(name="made-up", accelerator=processor)
    return Fleet(name="made-up", pools=(Pool(name="local", node=node),))


def with_curves(fleet: Fleet, curves: Curves) -> Fleet:
    """The same fleet with other curves in its first pool."""
    pool = fleet.pools[0]
    accelerator = replace(pool.node.accelerator, curves=curves)
    node = replace(pool.node, accelerator=accelerator)
    return replace(fleet, pools=(replace(pool, node=node), *fleet.pools[1:]))


def curves_of(fleet: Fleet) -> Curves:
    curves = fleet.pools[0].node.accelerator.curves
    assert curves is not None
    return curves


def _gemm(op: str, precision: str, threads: int, rate: float) -> GemmCurve:
    return GemmCurve(
        op=op,
        precision=precision,
        threads=threads,
        flop_per_s=figure(rate, "FLOP/s"),
        overhead_s=2e-6,
        m_half=8.0,
        n_half=8.0,
        k_half=4.0,
        spread=0.05,
    )


def _attention(kernel: str, precision: str, threads: int, product_s: float) -> AttentionCurve:
    return AttentionCurve(
        kernel=kernel,
        precision=precision,
        threads=threads,
        forward=(2e-5, 1e-9, product_s, 2e-9),
        backward=(4e-5, 2e-9, 2 * product_s, 4e-9),
        spread=0.05,
    )


def _op(
    op: str, precision: str, threads: int, call_s: float, element_s: float, *, backward: bool
) -> OpCurve:
    times_s = tuple(call_s + element_s * size for size in _SIZES)
    return OpCurve(
        op=op,
        precision=precision,
        threads=threads,
        sizes=_SIZES,
        forward_s=times_s,
        backward_s=tuple(2 * time_s for time_s in times_s) if backward else (),
        spread=0.05,
    )
