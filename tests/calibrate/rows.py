"""Rows as a probe would write them on a machine that obeys the curves exactly."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.machines import calibrated_fleet, curves_of
from twofold.fleet import Fleet
from twofold.perf.efficiency import attention_s, find_attention, find_gemm, find_op, product_s

LINEAR = (
    (256, 64, 256), (512, 128, 128), (512, 128, 512), (512, 256, 256), (2048, 128, 384),
    (2048, 128, 512), (1024, 256, 1024), (2048, 256, 256), (1024, 512, 2048),
)  # fmt: skip
ATTENTION = (
    (4, 2, 128, 64), (16, 2, 128, 64), (4, 4, 256, 64), (4, 4, 256, 32), (2, 4, 512, 64),
    (1, 2, 1024, 64),
)  # fmt: skip
MATRICES = ((4, 128, 128), (4, 512, 128), (6, 256, 256), (4, 1024, 256))
QUALITY: dict[str, Any] = {"spread": 0.01, "repeats": 9, "clean_fraction": 1.0}


def perfect_rows(
    fleet: Fleet | None = None, noise: float = 0.0, seed: int = 0
) -> list[dict[str, Any]]:
    """Every row of a small probe, times exact up to relative log-normal `noise`."""
    curves = curves_of(fleet or calibrated_fleet())
    generator = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = [
        {
            "kind": "machine", "device": "cpu", "framework": "torch 2.9", "processor": "made up",
            "threads": 2, "memory_bytes": 8_000_000_000, "cpu_capability": "AVX2",
            "architecture": "x86_64", "system": "Linux",
        },
        {"kind": "compiler", "available": True, "name": "g++"},
        {"kind": "startup", "ready_s": 3.0, "first_step_s": 0.1},
        {"kind": "startup", "ready_s": 3.5, "first_step_s": 0.2},
        {"kind": "disk", "bytes": 2**26, "time_s": 0.05, "cold": True},
        {"kind": "copy", "threads": 1, "bytes": 2**27, "time_s": 2**27 / 2e10, **QUALITY},
    ]  # fmt: skip
    for level, peak in (("none", 4.5e8), ("full", 4.2e8)):
        rows.append(
            {
                "kind": "heap", "level": level, "layers": 3, "hidden": 192, "heads": 3, "seq": 192,
                "vocab": 256, "batch": 8, "base_memory_bytes": 3.2e8, "peak_memory_bytes": peak,
            }
        )  # fmt: skip
    for size, time_s in ((1024, 1e-4), (2**23, 1e-4 + 2**23 / 1e9)):
        rows.append(
            {"kind": "all_reduce", "backend": "gloo", "processes": 2, "bytes": size,
             "time_s": time_s}
        )  # fmt: skip
    for precision in ("fp32", "bf16"):
        for threads in (1, 2):
            key = {"precision": precision, "threads": threads}
            rows += [{**row, **key, **QUALITY} for row in _precision(curves, precision, threads)]
    for row in rows:
        for name in ("forward_s", "training_s", "time_s"):
            if row.get(name) is not None:
                row[name] *= float(np.exp(noise * generator.standard_normal()))
    return rows


def _precision(curves: Any, precision: str, threads: int) -> list[dict[str, Any]]:
    linear = find_gemm(curves, "linear", precision, threads)
    orthogonal = find_gemm(curves, "orthogonalise", precision, threads)
    rows: list[dict[str, Any]] = []
    for m, k, n in LINEAR:
        forward = _products_s(linear, [(m, n, k), (m, k, n)])
        backward = _products_s(linear, [(m, k, n), (m, n, k), (n, k, m), (k, n, m)])
        rows.append(
            {
                "kind": "linear", "rows": m, "inputs": k, "outputs": n, "bias": False,
                "forward_s": forward, "training_s": forward + backward,
            }
        )  # fmt: skip
    for count, tall, wide in MATRICES:
        short, long = sorted((tall, wide))
        step = [(short, short, long), (short, short, short), (short, long, short)]
        rows.append(
            {
                "kind": "orthogonalise", "count": count, "rows": tall, "columns": wide,
                "time_s": 5 * _products_s(orthogonal, step, count),
            }
        )  # fmt: skip
    for kernel in ("sdpa", "explicit"):
        curve = find_attention(curves, kernel, precision, threads)
        for batch, heads, seq, head_dim in ATTENTION:
            forward, backward = (
                c[0] + float(attention_s(c, *(np.array([v]) for v in _shape(batch, heads, seq,
                                                                            head_dim)))[0])
                for c in (curve.forward, curve.backward)
            )  # fmt: skip
            rows.append(
                {
                    "kind": "attention", "kernel": kernel, "batch": batch, "heads": heads,
                    "seq": seq, "head_dim": head_dim, "forward_s": forward,
                    "training_s": forward + backward,
                }
            )  # fmt: skip
    for op in ("gelu", "add", "adamw_fused"):
        curve_of = find_op(curves, op, precision, threads)
        for index, size in enumerate(curve_of.sizes):
            forward_s = curve_of.forward_s[index]
            backward_s = curve_of.backward_s[index] if curve_of.backward_s else None
            rows.append(
                {
                    "kind": "op", "op": op, "elements": size, "forward_s": forward_s,
                    "training_s": None if backward_s is None else forward_s + backward_s,
                }
            )  # fmt: skip
    rows.append({"kind": "roof", "size": 1024, "time_s": 2 * 1024**3 / linear.flop_per_s.value})
    return rows


def _shape(batch: int, heads: int, seq: int, head_dim: int) -> tuple[float, float, float]:
    return float(batch * heads), float(seq), float(head_dim)


def _products_s(curve: Any, shapes: list[tuple[int, int, int]], batch: int = 1) -> float:
    total = 0.0
    for shape in shapes:
        m, n, k = (np.array([float(value)]) for value in shape)
        total += curve.overhead_s + float(product_s(curve, m, n, k, np.array([float(batch)]))[0])
    return total
