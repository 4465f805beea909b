"""Published serving runs, one CSV row each: what ran, where, under which load.

The columns are those of `data/inference_measured.csv`; any subset may be there. Rows of a kind
this module does not understand are unanswerable, with the reason; what is assumed is counted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from twofold.calibrate.pricing import FindNode
from twofold.calibrate.published import Assumptions, PublishedRow, UnanswerableError, read_rows
from twofold.errors import InputError, TwofoldError
from twofold.fleet import Node
from twofold.model import Model
from twofold.perf.serving_work import Layout
from twofold.perf.speeds import NARROW_KEYS
from twofold.plan import Precision
from twofold.serving_plan import KvPrecision, WeightPrecision
from twofold.sources.models import find_model

_LABELS = (
    "id", "accel_key", "source", "measured_date", "model", "accelerator", "vendor", "weight_prec",
    "kv_prec", "parallel_note", "mode", "engine", "engine_version", "scenario", "dataset",
    "len_kind", "spec_decode", "metric_note", "quality", "notes",
)  # fmt: skip
_NUMBERS = (
    "n_accel", "nodes", "tp", "pp", "dp", "ep", "isl", "osl", "concurrency", "batch",
    "request_rate", "out_tok_s", "out_tok_s_per_accel", "in_tok_s", "req_s", "ttft_ms",
    "ttft_p99_ms", "tpot_ms", "tpot_p99_ms", "e2e_ms",
)  # fmt: skip
SERVING_COLUMNS = ("isl", "osl", "ttft_ms", "tpot_ms", "out_tok_s", "out_tok_s_per_accel")
"""A file with any of these holds serving runs."""

Scenario = Literal["closed", "poisson", "offline", "static"]
PRODUCT_OF_EXPERTS = "attention over moe_tp x moe_ep devices read as over moe_ep"
RANGE_RATIO = 0.9
"""InferenceX draws lengths between 0.8 and 1 times the nominal ones: their mean."""

_PRECISIONS: dict[str, tuple[Precision, WeightPrecision]] = {
    "fp32": ("fp32", "same"),
    "bf16": ("bf16", "same"),
    "fp16": ("fp16", "same"),
    "fp8": ("fp8", "same"),
    "fp4": ("nvfp4", "same"),
    "int8": ("bf16", "int8"),
    "int4": ("bf16", "int4"),
}
_DATASET_INPUT = {
    "OpenOrca": 294.0,
    "OpenOrca+GSM8K+MBXP": 172.0,
    "CNN-DailyMail": 778.0,
    "ShareGPT": 225.0,
    "AIME/MATH/GPQA/MMLU-Pro/LiveCodeBench mix": 800.0,
}
"""Mean prompt tokens of the datasets, from their descriptions; assumed, and small beside what
decoding takes."""
_SAME_MODELS = {
    "deepseek-v3.1": "deepseek-v3",
    "deepseek-v3/r1": "deepseek-v3",
    "codellama-13b": "llama-2-13b",
}
_ENGINES = (
    ("tensorrt", "tensorrt-llm"), ("cuda 12", "tensorrt-llm"), ("sglang", "sglang"),
    ("vllm", "vllm"), ("neuron", "neuronx"), ("nxd", "neuronx"), ("jetstream", "jetstream"),
)  # fmt: skip
_NOTE = re.compile(
    r"(?:attn )?tp(?P<tp>\d+) dp(?P<dp>\d*) pp(?P<pp>\d+)[; ]+moe[_ ]tp(?P<mtp>\d+) ep(?P<ep>\d+)"
)
_DISAGGREGATED = re.compile(
    r"prefill (?P<np>\d+)x\((?P<prefill>[^)]*)\).*?decode (?P<nd>\d+)x\((?P<decode>[^)]*)\)"
)
_CUSTOMARY_TENSOR = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSetting:
    """A row that can be priced. `layouts` are what a replica may have been (one where it is
    stated); `users`, `rate_per_s` and lengths are of the whole deployment."""

    row: PublishedRow
    model: Model
    node: Node
    engine: str
    scenario: Scenario
    layouts: tuple[Layout, ...]
    replicas: int | None
    prefill: Layout | None
    prefill_replicas: int
    num_devices: int | None
    users: float | None
    rate_per_s: float | None
    input_tokens: float
    output_tokens: float


def is_serving_file(path: Path) -> bool:
    """Whether the CSV's header names serving runs, not training runs."""
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            header = stream.readline()
    except OSError as error:
        raise InputError(
            f"the file cannot be read as CSV: {error}", at=str(path), help="check the path"
        ) from error
    return "global_batch" not in header and any(name in header for name in SERVING_COLUMNS)


def read_serving_rows(path: Path) -> list[PublishedRow]:
    return read_rows(path, _LABELS, _NUMBERS)


def engine_family(text: str) -> str:
    lowered = text.lower()
    return next((family for word, family in _ENGINES if word in lowered), "other")


def serving_setting(row: PublishedRow, find_node: FindNode, assumed: Assumptions) -> ServingSetting:
    """UnanswerableError with the reason where the row does not say enough."""
    if row.label("mode") in ("disagg-prefill", "disagg-decode"):
        raise UnanswerableError("one phase of a deployment alone")
    if row.label("spec_decode") in ("draft model", "eagle", "mtp"):
        raise UnanswerableError("speculative decoding")
    node = _node(row, find_node)
    model = _model(row.label("model"))
    precision, weights = _precision(row, node, assumed)
    formats = _Formats(precision, weights, _kv(row, precision, assumed))
    scenario = _scenario(row)
    input_tokens, output_tokens = _lengths(row, assumed)
    layouts, replicas, prefill, prefill_replicas = _division(row, model, formats, assumed)
    for layout in (*layouts, *([prefill] if prefill else [])):
        if model.heads % (layout.tensor // layout.groups) and row.label("vendor") != "aws":
            raise UnanswerableError("a tensor degree that does not divide the heads")
    users = row.number("concurrency") or (row.number("batch") if scenario == "static" else None)
    if scenario == "closed" and not users:
        raise UnanswerableError("concurrency unknown")
    rate = row.number("req_s") or row.number("request_rate")
    return ServingSetting(
        row=row,
        model=model,
        node=node,
        engine=engine_family(row.label("engine")),
        scenario=scenario,
        layouts=layouts,
        replicas=replicas,
        prefill=prefill,
        prefill_replicas=prefill_replicas,
        num_devices=row.degree("n_accel"),
        users=users,
        rate_per_s=rate if scenario == "poisson" else None,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
    )


_DEVICES = {
    "a100_80": "a100-sxm-80g",
    "gh200_144": "gh200",
    "gh200_96": "gh200",
    "trn1": "trainium1",
    "trn2": "trainium2",
    "trn3": "trainium3",
    "inf2": "inferentia2",
    "rtxpro6000": "rtx-pro-6000",
    "gb200": "gb200-nvl72",
    "gb300": "gb300-nvl72",
}
"""Keys of the file that are not the catalog's ids but for an underscore; racks stand as one
NVLink domain."""


def _node(row: PublishedRow, find_node: FindNode) -> Node:
    key = row.label("accel_key")
    if key == "mixed":
        raise UnanswerableError("several kinds of devices in one row")
    try:
        return find_node(_DEVICES.get(key, key.replace("_", "-")) or row.label("accelerator"))
    except TwofoldError as error:
        raise UnanswerableError("device unknown") from error


@cache
def _model(name: str) -> Model:
    try:
        return find_model(_SAME_MODELS.get(name.lower(), name))
    except TwofoldError as error:
        raise UnanswerableError("model unknown") from error


def _precision(
    row: PublishedRow, node: Node, assumed: Assumptions
) -> tuple[Precision, WeightPrecision]:
    """A device without the narrow products reads narrow weights and multiplies in 16 bits."""
    stated = row.label("weight_prec").split(" ")[0]
    if stated in ("", "unstated"):
        stated = "fp8" if row.label("source").startswith("MLPerf") else "bf16"
        if stated == "fp8" and "fp8" not in node.accelerator.flop_per_s:
            stated = "bf16"
        assumed.note(f"weights in {stated}")
    if stated not in _PRECISIONS:
        raise UnanswerableError("precision unknown")
    precision, weights = _PRECISIONS[stated]
    if not set(NARROW_KEYS[precision]) & set(node.accelerator.flop_per_s):
        if stated == "fp8":
            return "bf16", "fp8"
        if stated == "fp4":
            return "bf16", "fp4"
        raise UnanswerableError("a precision that the device has no rate for")
    return precision, weights


def _kv(row: PublishedRow, precision: Precision, assumed: Assumptions) -> KvPrecision:
    """As stated; else in 8 bits where products run in 8 or 4 bits, and in the activations' width
    elsewhere: the load at which InferenceX's vLLM and SGLang runs begin to queue says so."""
    stated = row.label("kv_prec")
    if stated:
        return {"fp8": "fp8", "int8": "int8"}.get(stated, "same")  # type: ignore[return-value]
    narrow = precision in ("fp8", "nvfp4")
    assumed.note("cache in 8 bits" if narrow else "cache in 16 bits")
    return "fp8" if narrow else "same"


def _scenario(row: PublishedRow) -> Scenario:
    text = row.label("scenario").lower()
    if "closed loop" in text or text.startswith("online"):
        return "closed"
    if "server" in text or "interactive" in text:
        return "poisson"
    if "static batch" in text or "first token" in text:
        return "static"
    if "offline" in text or "throughput" in text or "production" in text or not text:
        return "closed" if row.number("concurrency") else "offline"
    return "closed"


def _lengths(row: PublishedRow, assumed: Assumptions) -> tuple[float, float]:
    inputs, outputs = row.number("isl"), row.number("osl")
    if inputs is None and row.label("dataset") in _DATASET_INPUT:
        inputs = _DATASET_INPUT[row.label("dataset")]
        assumed.note("prompt tokens of the dataset")
    if not inputs or not outputs:
        raise UnanswerableError("lengths unknown")
    if "0.8-1.0" in row.label("len_kind"):
        assumed.note("lengths 0.9 of the nominal ones")
        return RANGE_RATIO * inputs, RANGE_RATIO * outputs
    if row.label("len_kind").startswith("max"):
        assumed.note("lengths of ShareGPT")
        return min(inputs, _SHAREGPT[0]), min(outputs, _SHAREGPT[1])
    return inputs, outputs


_SHAREGPT = (225.0, 195.0)
"""Mean prompt and answer tokens of vLLM's filtered ShareGPT sample; assumed."""


@dataclass(frozen=True, slots=True)
class _Formats:
    precision: Precision
    weights: WeightPrecision
    kv: KvPrecision


def _layout(formats: _Formats, tensor: int, pipeline: int, groups: int, expert: int) -> Layout:
    return Layout(
        tensor=tensor,
        pipeline=pipeline,
        groups=groups,
        expert=expert,
        precision=formats.precision,
        weight_precision=formats.weights,
        kv_precision=formats.kv,
    )


def _noted(text: str, formats: _Formats, assumed: Assumptions) -> Layout:
    """From "attn tp4 dp1 pp1; moe tp4 ep1". A replica has tp x dp devices in each stage."""
    found = _NOTE.search(text)
    if found is None:
        raise UnanswerableError("layout not understood")
    tensor, groups = int(found["tp"]), int(found["dp"] or 1)
    inner, expert = max(int(found["mtp"]), 1), max(int(found["ep"]), 1)
    devices = tensor * groups
    if inner > 1 and inner == expert and devices == inner * expert:
        assumed.note(PRODUCT_OF_EXPERTS)
        devices = expert
        groups = min(groups, devices)
    if devices % groups or devices % expert:
        raise UnanswerableError("layout not understood")
    return _layout(formats, devices, int(found["pp"]), groups, expert)


def _division(
    row: PublishedRow, model: Model, formats: _Formats, assumed: Assumptions
) -> tuple[tuple[Layout, ...], int | None, Layout | None, int]:
    """Layouts and replicas of decoding, layout and replicas of prefill."""
    note = row.label("parallel_note")
    split = _DISAGGREGATED.search(note)
    if split is not None:
        decode = _noted(split["decode"], formats, assumed)
        prefill = _noted(split["prefill"], formats, assumed)
        return (decode,), int(split["nd"]), prefill, int(split["np"])
    if row.label("mode") == "disagg":
        raise UnanswerableError("how many prefill and decode replicas is not said")
    devices = row.degree("n_accel")
    if note.startswith("attn"):
        layout = _noted(note, formats, assumed)
        if layout.tensor > 16:
            raise UnanswerableError("layout not understood")
        return (layout,), 1, None, 0
    tensor, pipeline = row.degree("tp"), row.degree("pp") or 1
    data, expert = row.degree("dp") or 1, row.degree("ep") or 1
    if row.label("vendor") == "aws" and devices:
        return (_layout(formats, devices, 1, 1, 1),), 1, None, 0
    if "DEP" in note or "attention_dp: true" in note:
        width = max(data, tensor or 1)
        expert = max(expert, width if model.experts else 1)
        layout = _layout(formats, width, pipeline, width, min(expert, width))
        return (layout,), None, None, 0
    if tensor:
        return (_layout(formats, tensor, pipeline, 1, expert),), None, None, 0
    assumed.note("the best of the customary tensor degrees")
    most = min(devices or 8, 8)
    layouts = tuple(
        _layout(formats, degree, 1, 1, 1)
        for degree in _CUSTOMARY_TENSOR
        if degree <= most and model.kv_heads % min(degree, model.kv_heads) == 0
    )
    return layouts, None, None, 0
