"""Machines of published runs, as datasheets have them, and documents of plans on them."""

from __future__ import annotations

from typing import Any

from tests.fleets import figure
from twofold.document import PlanDocument, make_document
from twofold.fleet import Accelerator, Fleet, Link, MemoryTier, Node, Pool
from twofold.model import Model
from twofold.plan import Plan
from twofold.workload import Recipe, Train

T, G = 1e12, 1e9


def _node(
    name: str,
    *,
    die: str,
    launched: str,
    rates: dict[str, float],
    memory: float,
    bandwidth: float,
    up: float,
    fabric: str,
    out: float,
    power_w: float,
    devices: int = 8,
    domain: int = 8,
) -> Node:
    return Node(
        name=name,
        accelerator=Accelerator(
            name=name,
            kind="gpu",
            vendor="nvidia",
            die=die,
            launched=launched,
            memory=MemoryTier(
                name="hbm",
                usable_bytes=figure(memory, "B"),
                bandwidth_bytes_per_s=figure(bandwidth, "B/s"),
            ),
            flop_per_s={name: figure(rate, "FLOP/s") for name, rate in rates.items()},
            power_idle_w=figure(0.1 * power_w, "W"),
            power_max_w=figure(power_w, "W"),
            failures_per_hour=figure(2e-5, "1/h"),
            embodied_kgco2e=figure(150.0, "kg"),
        ),
        num_accelerators=devices,
        links=(
            _link("nvlink", "scale-up", up, 5e-6, fabric, domain),
            _link("infiniband", "scale-out", out, 1e-5, "infiniband", 0),
        ),
        power_overhead_w=figure(250.0 * devices, "W"),
    )


def _link(name: str, scope: Any, bandwidth: float, latency: float, fabric: str, n: int) -> Link:
    return Link(
        name=name,
        scope=scope,
        bandwidth_bytes_per_s=figure(bandwidth, "B/s"),
        latency_s=figure(latency, "s"),
        fabric=fabric,
        domain=n,
    )


A100 = _node(
    "a100-sxm-80g", die="ga100", launched="2020-11",
    rates={"bf16": 312 * T, "fp16": 312 * T}, memory=80 * 2**30, bandwidth=2039 * G,
    up=300 * G, fabric="nvlink3", out=25 * G, power_w=400.0,
)  # fmt: skip
H100 = _node(
    "h100-sxm", die="gh100", launched="2022-10",
    rates={"bf16": 989 * T, "fp16": 989 * T, "fp8": 1979 * T}, memory=85.5 * G,
    bandwidth=3350 * G, up=450 * G, fabric="nvlink4", out=50 * G, power_w=700.0,
)  # fmt: skip
H800 = _node(
    "h800-sxm", die="gh100", launched="2023-03",
    rates={"bf16": 989 * T, "fp16": 989 * T, "fp8": 1979 * T}, memory=85.5 * G,
    bandwidth=3350 * G, up=200 * G, fabric="nvlink4", out=50 * G, power_w=700.0,
)  # fmt: skip
B200 = _node(
    "b200-sxm", die="gb100", launched="2024-11",
    rates={"bf16": 2250 * T, "fp16": 2250 * T, "fp8": 4500 * T, "mxfp8": 4500 * T,
           "nvfp4": 9000 * T},
    memory=192.3 * G, bandwidth=7700 * G, up=900 * G, fabric="nvlink5", out=50 * G,
    power_w=1000.0,
)  # fmt: skip
GB200 = _node(
    "gb200", die="gb100", launched="2024-12",
    rates={"bf16": 2500 * T, "fp16": 2500 * T, "fp8": 5000 * T, "mxfp8": 5000 * T,
           "nvfp4": 10000 * T},
    memory=198.7 * G, bandwidth=8000 * G, up=900 * G, fabric="nvlink5", out=50 * G,
    power_w=1200.0, devices=4, domain=72,
)  # fmt: skip


def document(
    model: Model,
    node: Node,
    plan: Plan,
    *,
    global_batch: int,
    seq_len: int,
    usd_per_device_hour: float | None = 3.0,
    **pool: Any,
) -> PlanDocument:
    """A plan on as many machines as it needs, for 10,000 steps, not estimated yet."""
    devices = plan.data_degree * plan.tensor_degree * plan.context_degree * plan.pipeline_degree
    price = None
    if usd_per_device_hour is not None:
        price = figure(usd_per_device_hour * node.num_accelerators, "USD/h")
    fields: dict[str, Any] = {
        "grid_kgco2e_per_kwh": figure(0.3, "kg/kWh"),
        "pue": figure(1.2, "1"),
        "usd_per_node_hour": price,
    }
    return make_document(
        model=model,
        workload=Train(
            text="stdlib",
            tokens=10_000 * global_batch * seq_len,
            seq_len=seq_len,
            recipe=Recipe(learning_rate=3e-4, global_batch=global_batch),
        ),
        fleet=Fleet(
            name="test",
            pools=(
                Pool(
                    name=plan.pool,
                    node=node,
                    num_nodes=-(-devices // node.num_accelerators),
                    **(fields | pool),
                ),
            ),
        ),
        plan=plan,
        estimate=None,
        seed=0,
        twofold_version="0",
    )
