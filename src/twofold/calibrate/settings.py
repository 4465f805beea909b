"""What a published row ran: machines, workload, and the plans it may have used.

A row that does not state its plan stands for the best of the plans it may have been: whoever
publishes a number has tried the obvious ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

from twofold.calibrate.published import Assumptions, PublishedRow, UnanswerableError
from twofold.errors import TwofoldError
from twofold.figure import Figure
from twofold.fleet import Link, Node
from twofold.model import Model
from twofold.perf.speeds import NARROW_KEYS
from twofold.plan import Attention, Plan, Precision, Recompute, Schedule

_ACCELERATORS: tuple[tuple[str, str], ...] = (
    (r"gh200", "gh200"),
    (r"gb200", "gb200-nvl72"),
    (r"gb300", "gb300-nvl72"),
    (r"b200", "b200-sxm"),
    (r"b300", "b300-sxm"),
    (r"h100.*pcie", "h100-pcie"),
    (r"h100.*nvl", "h100-nvl"),
    (r"h100", "h100-sxm"),
    (r"h200", "h200-sxm"),
    (r"h800", "h800-sxm"),
    (r"h20\b", "h20"),
    (r"a100.*40", "a100-sxm-40g"),
    (r"a100", "a100-sxm-80g"),
    (r"v100.*16", "v100-sxm2-16g"),
    (r"v100", "v100-sxm2-32g"),
    (r"l40s", "l40s"),
    (r"mi(250x|300x|325x|350x|355x)", r"mi\1"),
    (r"gaudi ?-?([23])", r"gaudi\1"),
    (r"tpu ?v?7x?|ironwood", "tpu-v7x"),
    (r"tpu ?(v3|v4|v5e|v5p|v6e)", r"tpu-\1"),
    (r"trillium", "tpu-v6e"),
    (r"(?:trainium|trn) ?([123])", r"trainium\1"),
)
"""How published tables call devices, the first that matches, and what the catalog calls them."""

CORES_PER_CHIP = {"trainium1": 2, "tpu-v3": 2}
"""Devices that frameworks address by core: degrees count cores, the file counts chips."""

_CATEGORIES: dict[str, Precision] = {
    "FP32": "fp32",
    "TF32": "tf32",
    "BF16": "bf16",
    "FP16": "fp16",
    "FP8": "fp8",
    "FP8-MX/SUBCHANNEL": "fp8",
    "MXFP8": "mxfp8",
    "NVFP4": "nvfp4",
}
_TENSOR = (1, 2, 4, 8)
_PIPELINE = (1, 2, 4, 8, 16)
_MICRO_BATCH = (1, 2, 4, 8, 16, 32, 64)
_LORA_PARAMETERS = 4e7
_MAX_CANDIDATES = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One run: `plans` are what it may have executed, `num_devices` in the plan's units."""

    model: Model
    node: Node
    num_devices: int
    seq_len: int
    global_batch: int
    date: str
    frozen: bool
    plans: tuple[Plan, ...]
    recompute_known: bool
    accumulates_in_products: bool
    adapter_parameters: float | None


def row_setting(
    row: PublishedRow, model: Model, find_node: Callable[[str], Node], assumed: Assumptions
) -> Setting:
    """Machines and candidate plans of a row; UnanswerableError names what is missing."""
    seq_len, batch = row.degree("seq_len"), row.degree("global_batch")
    count = row.degree("accel_count")
    if not count:
        raise UnanswerableError("number of devices unknown")
    if not seq_len:
        raise UnanswerableError("sequence length unknown")
    if not batch:
        raise UnanswerableError("global batch unknown")
    node = row_node(row, find_node)
    cores = CORES_PER_CHIP.get(node.accelerator.name, 1)
    devices = count * cores
    plans = _plans(row, model, node, devices, batch, seq_len, assumed)
    frozen = row.label("task") == "lora"
    return Setting(
        model=model,
        node=node,
        num_devices=devices,
        seq_len=seq_len,
        global_batch=batch,
        date=row.label("date") or "2024",
        frozen=frozen,
        plans=plans,
        recompute_known=bool(row.label("recompute")),
        accumulates_in_products=_accumulates_in_products(row),
        adapter_parameters=_LORA_PARAMETERS if frozen else None,
    )


def row_node(row: PublishedRow, find_node: Callable[[str], Node]) -> Node:
    """The catalog's node of the row's device, with the links that the row states."""
    name = row.label("accelerator")
    if not name:
        raise UnanswerableError("device unknown")
    try:
        node = find_node(catalog_name(name))
    except TwofoldError as error:
        raise UnanswerableError(f"device not in the catalog: {name}") from error
    node = _with_scale_out(_with_memory(node, name), row.label("interconnect"))
    cores = CORES_PER_CHIP.get(node.accelerator.name, 1)
    return node if cores == 1 else _per_core(node, cores)


def catalog_name(label: str) -> str:
    """The catalog's id for a published label; the label itself where no pattern knows it."""
    for pattern, name in _ACCELERATORS:
        match = re.search(pattern, label, re.IGNORECASE)
        if match:
            return match.expand(name)
    return label


_HBM2E_H100 = {"usable_bytes": 96e9, "bandwidth_bytes_per_s": 2.4e12}
"""Meta's H100 with 96 GB of HBM2e at 2.4 TB/s (torchtitan's benchmark pages)."""


def _with_memory(node: Node, label: str) -> Node:
    """The memory that the label states, where a device was also sold with another."""
    if "h100" not in label.lower() or "hbm2e" not in label.lower():
        return node
    memory = node.accelerator.memory
    figures = {
        name: replace(getattr(memory, name), value=value, source="the row itself")
        for name, value in _HBM2E_H100.items()
    }
    accelerator = replace(node.accelerator, memory=replace(memory, **figures))
    return replace(node, accelerator=accelerator)


def _with_scale_out(node: Node, text: str) -> Node:
    """The scale-out that the text states, per device, instead of the customary one."""
    stated = _stated_bytes_per_s(text, node.num_accelerators)
    if stated is None:
        return node
    speed, fabric = stated
    links = []
    for link in node.links:
        if link.scope == "scale-out":
            figure = replace(link.bandwidth_bytes_per_s, value=speed, source="the row itself")
            link = replace(link, bandwidth_bytes_per_s=figure, fabric=fabric or link.fabric)
        links.append(link)
    return replace(node, links=tuple(links))


def _stated_bytes_per_s(text: str, per_node: int) -> tuple[float, str] | None:
    if "Omni-Path" in text:
        return 4 * 12.5e9 / per_node, "omni-path"
    if match := re.search(r"RoCE (\d+) ?Gbps/node", text):
        return float(match[1]) / 8 * 1e9 / per_node, "roce"
    if re.search(r"8x HDR", text):
        return 25e9, "infiniband"
    if "8x50 GB/s" in text or re.search(r"8x ConnectX-7 IB NDR 400", text):
        return 50e9, "infiniband"
    if re.search(r"4x ConnectX-7 IB NDR 400", text):
        return 4 * 50e9 / per_node, "infiniband"
    if "GCP A3" in text:
        return 25e9, "ethernet"
    return None


def _per_core(node: Node, cores: int) -> Node:
    """A chip as its cores: each with its share of everything."""
    accelerator = node.accelerator

    def part(figure: Figure) -> Figure:
        return replace(figure, value=figure.value / cores)

    bandwidth = accelerator.memory.bandwidth_bytes_per_s

    memory = replace(
        accelerator.memory,
        usable_bytes=part(accelerator.memory.usable_bytes),
        bandwidth_bytes_per_s=None if bandwidth is None else part(bandwidth),
    )
    flop = {k: part(f) for k, f in accelerator.flop_per_s.items()}
    links: list[Link] = [
        replace(
            link,
            bandwidth_bytes_per_s=part(link.bandwidth_bytes_per_s),
            domain=link.domain * cores,
        )
        for link in node.links
    ]
    return replace(
        node,
        accelerator=replace(accelerator, memory=memory, flop_per_s=flop),
        num_accelerators=node.num_accelerators * cores,
        links=tuple(links),
    )


def _precision(row: PublishedRow, node: Node, assumed: Assumptions) -> Precision:
    stated = _CATEGORIES.get(row.label("precision").upper())
    has = node.accelerator.flop_per_s
    if stated is not None:
        if not any(key in has for key in NARROW_KEYS[stated]):
            raise UnanswerableError(f"the device has no known {stated} rate")
        return stated
    contest = row.label("source_id").startswith("mlperf")
    if contest and "fp8" in has and "TPU" not in row.label("accelerator"):
        assumed.note("8-bit products in a contest entry of a device that has them")
        return "fp8"
    if row.label("precision") == "":
        assumed.note("16-bit products")
    return "bf16" if "bf16" in has else "fp16"


def _attention(row: PublishedRow) -> Attention:
    """Attention that materialises its scores: before FlashAttention reached the framework."""
    framework, date = row.label("framework"), row.label("date")
    if "DeepSpeed" in framework:
        return "explicit"
    if "Neuron" in framework:
        return "sdpa"  # one compiled graph
    return "explicit" if date and date < "2022-11" else "sdpa"


def _zero_stage(row: PublishedRow) -> tuple[int, int]:
    """ZeRO stage and size of a sharding group (0: all ranks)."""
    text, framework = row.label("data_sharding"), row.label("framework").lower()
    if "SHARD_GRAD_OP" in text:
        return 2, 0
    if match := re.match(r"FSDP ?\(?(\d+)\)?", text):
        return 3, int(match[1])
    if "FSDP" in text:
        return 3, 0
    if "ZeRO-1" in text or "dist-optimizer" in text:
        return 1, 0
    if any(word in framework for word in ("jax", "maxtext", "torchtitan", "levanter", "fsdp")):
        return 3, 0
    if "DeepSpeed" in row.label("framework") or (row.label("date") or "9") < "2022-06":
        return 0, 0
    return 1, 0


def _accumulates_in_products(row: PublishedRow) -> bool:
    """Products that add weight gradients to the sum themselves came to Megatron in 2022 (Apex's
    fused_weight_gradient_mlp); before, and in DeepSpeed, a pass of its own adds them."""
    return "DeepSpeed" not in row.label("framework") and (row.label("date") or "9") >= "2022"


def _recomputes(row: PublishedRow) -> tuple[Recompute, ...]:
    text = row.label("recompute").lower()
    if not text:
        return ("none", "selective") if _attention(row) == "explicit" else ("none",)
    if text == "full":
        return ("full",)
    return ("none",) if text == "none" else ("selective",)


def _plans(
    row: PublishedRow,
    model: Model,
    node: Node,
    devices: int,
    batch: int,
    seq_len: int,
    assumed: Assumptions,
) -> tuple[Plan, ...]:
    stage, shard = _zero_stage(row)
    sharded = stage == 3
    precision, attention = _precision(row, node, assumed), _attention(row)
    scale = CORES_PER_CHIP.get(node.accelerator.name, 1)
    cores = scale if scale > 1 and row.label("source_id") != "aws-neuron" else 1
    stated = row.degree("tp"), row.degree("pp")
    if stated == (None, None):
        assumed.note("fully sharded data parallelism" if sharded else "the best layout")
    tensors = (stated[0],) if stated[0] else ((1,) if sharded or devices == 1 else _TENSOR)
    if stated[0] is None and row.label("arch") == "encoder":
        tensors = (1,)
    pipelines = (stated[1],) if stated[1] else ((1,) if sharded or len(tensors) == 1 else _PIPELINE)
    context = row.degree("cp") or 1
    if sharded and row.degree("cp") is None and batch < devices and devices % batch == 0:
        assumed.note("sequences split where there are fewer than devices")
        context = devices // batch
    spreads = _expert_degrees(row, model)
    micro = row.degree("micro_batch")
    plans: list[Plan] = []
    for tensor, pipeline, recompute, expert in product(
        tensors, pipelines, _recomputes(row), spreads
    ):
        inner = tensor * pipeline * context
        if inner > devices or (len(pipelines) > 1 and model.layers % pipeline):
            continue
        data = devices // inner
        if data * inner != devices or data > batch:
            continue
        per_rank = batch / data
        options: tuple[int, ...] = (micro,) if micro else _MICRO_BATCH
        if micro is None and sharded and not row.number("grad_accum"):
            options = (max(1, round(per_rank)),)
        for size in options:
            if not micro and size > max(1.0, per_rank):
                continue
            for virtual in _virtual(row, model, pipeline):
                schedule: Schedule = "interleaved" if virtual > 1 and pipeline > 1 else "1f1b"
                plans.append(
                    Plan(
                        pool="row",
                        data_degree=data,
                        tensor_degree=tensor,
                        context_degree=context,
                        pipeline_degree=pipeline,
                        expert_degree=min(expert, data * context * tensor),
                        sequence_parallel=_sequence_parallel(row, tensor),
                        zero_stage=stage,  # type: ignore[arg-type]
                        shard_degree=min(shard, data * context),
                        schedule=_schedule(row, schedule),
                        virtual_stages=virtual if pipeline > 1 else 1,
                        micro_batch=size,
                        precision=precision,
                        attention=attention,
                        recompute=recompute,
                    )
                )
    if cores > 1:
        assumed.note("a plan by chips on cores")
    if micro is None:
        assumed.note("the best micro-batch")
    if not row.label("recompute"):
        assumed.note("the least recomputation that fits")
    if not plans:
        raise UnanswerableError("the stated degrees do not fit the number of devices")
    return tuple(plans[:_MAX_CANDIDATES])


def _expert_degrees(row: PublishedRow, model: Model) -> tuple[int, ...]:
    """As stated; else none, a machine's eight, or one expert a rank."""
    if model.experts is None:
        return (1,)
    stated = row.degree("ep")
    return (
        (stated,)
        if stated
        else tuple(sorted({1, min(8, model.experts.count), model.experts.count}))
    )


def _virtual(row: PublishedRow, model: Model, pipeline: int) -> tuple[int, ...]:
    """Model chunks a device; contest entries interleave without saying so."""
    stated = row.degree("vp")
    if stated is not None or pipeline == 1:
        return (stated or 1,)
    if row.label("schedule") or not row.label("source_id").startswith("mlperf"):
        return (1,)
    per_stage = model.layers // pipeline
    return tuple(v for v in (1, 2, 3, 4, 6) if per_stage % v == 0)


def _sequence_parallel(row: PublishedRow, tensor: int) -> bool:
    if tensor == 1:
        return False
    stated = row.label("sp").lower()
    if stated:
        return stated.startswith(("y", "t", "1"))
    return (row.label("date") or "9") >= "2022-06" and "DeepSpeed" not in row.label("framework")


def _schedule(row: PublishedRow, default: Schedule) -> Schedule:
    text = row.label("schedule").lower()
    return "zb-h1" if "zero" in text or text.startswith(("zb", "v-")) else default
