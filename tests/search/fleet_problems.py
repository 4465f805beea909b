"""Small problems on made-up pools, for tests of the search over fleets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.fleets import figure
from tests.workloads import gpt2_model
from twofold.fleet import Accelerator, Link, MemoryTier, Node, Pool
from twofold.model import Experts, Model
from twofold.perf.fleet import Problem, make_problem
from twofold.perf.speeds import fitted_efficiencies
from twofold.workload import Recipe, Train


def accelerator(*, memory_bytes: float = 80e9, **changes: Any) -> Accelerator:
    fields: dict[str, Any] = {
        "name": "made-up-gpu",
        "kind": "gpu",
        "memory": MemoryTier(
            name="hbm",
            usable_bytes=figure(memory_bytes, "B"),
            bandwidth_bytes_per_s=figure(2e12, "B/s"),
        ),
        "flop_per_s": {"bf16": figure(300e12, "FLOP/s"), "fp8": figure(600e12, "FLOP/s")},
        "power_idle_w": figure(60.0, "W"),
        "power_max_w": figure(500.0, "W"),
        "failures_per_hour": figure(2e-5, "1/h"),
        "embodied_kgco2e": figure(150.0, "kgCO2e"),
    }
    return Accelerator(**(fields | changes))


def pool(
    *,
    num_nodes: int = 2,
    up_bytes_per_s: float = 300e9,
    out_bytes_per_s: float = 25e9,
    scale_out: bool = True,
    **device: Any,
) -> Pool:
    links = [
        Link(
            name="up",
            latency_s=figure(5e-6, "s"),
            bandwidth_bytes_per_s=figure(up_bytes_per_s, "B/s"),
            scope="scale-up",
            domain=8,
        ),
        Link(
            name="out",
            latency_s=figure(1e-5, "s"),
            bandwidth_bytes_per_s=figure(out_bytes_per_s, "B/s"),
            scope="scale-out",
        ),
    ]
    return Pool(
        name="made-up",
        node=Node(
            name="made-up-node",
            accelerator=accelerator(**device),
            num_accelerators=8,
            links=tuple(links[: 2 if scale_out else 1]),
        ),
        num_nodes=num_nodes,
        usd_per_node_hour=figure(30.0, "USD/h"),
        grid_kgco2e_per_kwh=figure(0.4, "kgCO2e/kWh"),
        pue=figure(1.1, "1"),
    )


def dense_model(**changes: Any) -> Model:
    fields: dict[str, Any] = {
        "name": "dense",
        "layers": 12,
        "hidden": 2048,
        "heads": 16,
        "kv_heads": 4,
        "ffn": 8192,
        "vocab": 32000,
        "norm": "rmsnorm",
        "activation": "swiglu",
        "position": "rotary",
        "bias": False,
        "tied_embeddings": False,
    }
    return gpt2_model(**(fields | changes))


def expert_model(**changes: Any) -> Model:
    experts = Experts(count=8, top_k=2, ffn=2048)
    return dense_model(**({"name": "experts", "experts": experts} | changes))


def problem(
    model: Model | None = None,
    *,
    global_batch: int = 64,
    seq_len: int = 2048,
    tokens: int = 10**9,
    **pool_changes: Any,
) -> Problem:
    recipe = Recipe(learning_rate=1e-3, global_batch=global_batch)
    workload = Train(text="stdlib", tokens=tokens, seq_len=seq_len, recipe=recipe)
    return make_problem(
        model or dense_model(), workload, pool(**pool_changes), fitted_efficiencies(), "2026-11"
    )


def on_pool(case: Problem, **changes: Any) -> Problem:
    """The same work on a pool changed."""
    return replace(case, pool=pool(**changes))
