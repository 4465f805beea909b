"""Published serving rows as columns that any fit prices: volumes, hardware, load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from twofold.calibrate.inference_rows import ServingSetting, serving_setting
from twofold.calibrate.pricing import FindNode
from twofold.calibrate.published import Assumptions, PublishedRow, UnanswerableError
from twofold.errors import TwofoldError
from twofold.model import Model
from twofold.model.cache import cache_elements
from twofold.perf.rates import HardwareColumns
from twofold.perf.serving_memory import (
    buffer_bytes,
    framework_bytes,
    kv_bytes_per_token,
    weights_per_device_bytes,
)
from twofold.perf.serving_rates import (
    ServingEfficiencies,
    ServingReach,
    ServingShared,
    reached_rates,
    serving_reach,
)
from twofold.perf.serving_steady import (
    Load,
    Steady,
    aggregated,
    at_rate,
    disaggregated,
    static_batch,
)
from twofold.perf.serving_terms import StepTerms, step_terms
from twofold.perf.serving_work import (
    Layout,
    ServingVolumes,
    kv_bytes,
    serving_volumes,
    stack_volumes,
)
from twofold.perf.speeds import hardware_columns

Array = NDArray[np.float64]
Index = NDArray[np.intp]
Columns = TypeVar("Columns")

_MEMORY_FRACTION = 0.9
_BUDGET_TOKENS = 8192.0
"""Tokens of a step, of each attention group: the default of vLLM's and TensorRT-LLM's servers."""
_MOST_SEQUENCES = {"tensorrt-llm": 2048.0}
_USUAL_MOST_SEQUENCES = 1024.0


_CODES = {"fp8": 1, "mxfp8": 1, "nvfp4": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """One phase of some candidates: what depends on no efficiency. `codes` are 0 where products
    run in 16 bits or more, 1 in 8, 2 in 4."""

    volumes: ServingVolumes
    sold: HardwareColumns
    codes: Index


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaves:
    """Every number of a fit that a candidate's price depends on, its own: [candidates]. Names as
    in `ServingDie`, `ServingFabric`, `ServingEngine`, `ServingShared` and `Load`."""

    gemm: Array
    fp8: Array
    fp4: Array
    attention: Array
    memory: Array
    call_s: Array
    up: Array
    up_latency_s: Array
    out: Array
    out_latency_s: Array
    step_s: Array
    sequence_s: Array
    token_s: Array
    request_s: Array
    wait_steps: Array
    waves: Array
    overlap: Array
    expert_imbalance: Array
    stream: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedServing:
    """Rows that can be answered, and their candidates as columns; `owner` is the row of each.

    `prefill` are the machines that compute prompts (the same where not `split`). `measured` holds
    TTFT, TPOT and output tokens/s of each row, NaN where the row has none.
    """

    settings: tuple[ServingSetting, ...]
    owner: Index
    decode: Machines
    prefill: Machines
    split: NDArray[np.bool_]
    replicas: Array
    prefill_replicas: Array
    max_sequences: Array
    budget_tokens: Array
    transfer_s: Array
    fits: NDArray[np.bool_]
    measured: dict[str, Array]
    refused: Counter[str]
    assumed: Assumptions
    num_read: int

    @property
    def rows(self) -> tuple[PublishedRow, ...]:
        return tuple(setting.row for setting in self.settings)


def price_serving(rows: Sequence[PublishedRow], find_node: FindNode) -> PricedServing:
    """UnanswerableError where no row says enough."""
    refused: Counter[str] = Counter()
    assumed = Assumptions()
    settings = []
    find = cache(find_node)
    for row in rows:
        guessed = Assumptions()
        try:
            setting = serving_setting(row, find, guessed)
            for layout in setting.layouts:
                _volumes(setting.model, layout)
        except UnanswerableError as reason:
            refused[str(reason)] += 1
            continue
        except TwofoldError as error:
            refused[error.what] += 1
            continue
        assumed.counts += guessed.counts
        settings.append(setting)
    if not settings:
        raise UnanswerableError("no row can be answered: " + (", ".join(refused) or "none"))
    pairs = [(i, layout) for i, s in enumerate(settings) for layout in s.layouts]
    of_row = [settings[i] for i, _ in pairs]
    layouts = [layout for _, layout in pairs]
    prefills = [s.prefill or layout for s, layout in zip(of_row, layouts, strict=True)]
    most = [_max_sequences(s, layout) for s, layout in zip(of_row, layouts, strict=True)]
    return PricedServing(
        settings=tuple(settings),
        owner=np.array([i for i, _ in pairs]),
        decode=_machines(of_row, layouts),
        prefill=_machines(of_row, prefills),
        split=np.array([s.prefill is not None for s in of_row]),
        replicas=np.array([_replicas(s, p) for s, p in zip(of_row, layouts, strict=True)]),
        prefill_replicas=np.array([max(s.prefill_replicas, 1.0) for s in of_row]),
        max_sequences=np.maximum(most, 1.0),
        budget_tokens=np.array([_BUDGET_TOKENS * layout.groups for layout in layouts]),
        transfer_s=np.array([_transfer_s(s, p) for s, p in zip(of_row, layouts, strict=True)]),
        fits=np.array(most) >= 1.0,
        measured=_measured(settings),
        refused=refused,
        assumed=assumed,
        num_read=len(rows),
    )


def predict_serving(
    priced: PricedServing, fit: ServingEfficiencies
) -> tuple[dict[str, Array], Index]:
    """TTFT (s), TPOT (s), output tokens/s of every row, and the candidate it stands on: the one of
    the most tokens/s that fits into memory."""
    found = solve_leaves(priced, leaves_of(priced, fit))
    score = np.where(priced.fits, found["tokens"], found["tokens"] * 1e-6)
    chosen = np.zeros(len(priced.settings), dtype=np.intp)
    best = np.full(len(priced.settings), -1.0)
    for index, (row, value) in enumerate(zip(priced.owner, score, strict=True)):
        if value > best[row]:
            best[row], chosen[row] = value, index
    return {name: values[chosen] for name, values in found.items()}, chosen


def leaves_of(priced: PricedServing, fit: ServingEfficiencies) -> Leaves:
    """What the fit says of each candidate."""
    known: dict[tuple[str, str, str], tuple[float, ...]] = {}
    rows = []
    for owner in priced.owner:
        setting = priced.settings[owner]
        key = (setting.node.name, setting.engine, wave_name(setting))
        if key not in known:
            reach = serving_reach(setting.node, "bf16", fit, setting.engine)
            die, host = fit.die(setting.node.accelerator), fit.engine(setting.engine)
            habit = fit.habit(wave_name(setting))
            reached = (reach.up, reach.up_latency_s, reach.out, reach.out_latency_s)
            hosted = (host.step_s, host.sequence_s, host.token_s, host.request_s)
            habits = (habit.wait_steps, habit.waves)
            shared = (fit.shared.overlap, fit.shared.expert_imbalance, fit.shared.stream)
            of_die = (die.gemm, die.fp8, die.fp4, die.attention, die.memory, reach.call_s)
            known[key] = tuple(float(x) for x in of_die + reached + hosted + habits + shared)
        rows.append(known[key])
    columns = np.array(rows, dtype=float).T
    names = [f.name for f in fields(Leaves)]
    return Leaves(**dict(zip(names, columns, strict=True)))


def solve_leaves(priced: PricedServing, leaves: Leaves) -> dict[str, Array]:
    """TTFT (s), TPOT (s) and output tokens/s of every candidate."""
    shared = ServingShared(
        overlap=leaves.overlap,  # type: ignore[arg-type]
        expert_imbalance=leaves.expert_imbalance,  # type: ignore[arg-type]
        stream=leaves.stream,  # type: ignore[arg-type]
    )
    decode, prefill = (
        step_terms(part.volumes, reached_rates(part.sold, _reach(part, leaves), shared))
        for part in (priced.decode, priced.prefill)
    )
    load = _load(priced, leaves)
    scenario = np.array([priced.settings[i].scenario for i in priced.owner])
    steady = _solve(priced, scenario, decode, prefill, load)
    replicas = np.where(priced.split, 1.0, priced.replicas)
    return {
        "ttft": steady.ttft_s,
        "tpot": steady.tpot_s,
        "tokens": steady.output_tokens_per_s(load.output_tokens) * replicas,
    }


def _reach(part: Machines, leaves: Leaves) -> ServingReach:
    codes = part.codes
    narrow = np.where(codes == 2, leaves.fp4, np.where(codes == 1, leaves.fp8, leaves.gemm))
    return ServingReach(
        narrow=narrow,
        wide=leaves.gemm,
        attention=leaves.attention,
        memory=leaves.memory,
        call_s=leaves.call_s,
        up=leaves.up,
        up_latency_s=leaves.up_latency_s,
        out=leaves.out,
        out_latency_s=leaves.out_latency_s,
        step_s=leaves.step_s,
        sequence_s=leaves.sequence_s,
        token_s=leaves.token_s,
    )


def _solve(
    priced: PricedServing,
    scenario: NDArray[np.str_],
    decode: StepTerms,
    prefill: StepTerms,
    load: Load,
) -> Steady:
    """Each scenario by its own loop."""
    size = len(priced.owner)
    result = {name: np.zeros(size) for name in ("ttft_s", "tpot_s", "requests_per_s", "decoding")}

    def put(use: NDArray[np.bool_], steady: Steady) -> None:
        for name, column in result.items():
            column[use] = getattr(steady, name)

    queued = (scenario == "closed") | (scenario == "offline")
    use = queued & ~priced.split
    if use.any():
        put(use, aggregated(_take(decode, use), _take(load, use)))
    use = queued & priced.split
    if use.any():
        put(
            use,
            disaggregated(
                _take(prefill, use),
                _take(decode, use),
                _take(load, use),
                priced.prefill_replicas[use],
                priced.replicas[use],
                priced.transfer_s[use],
            ),
        )
    use = scenario == "poisson"
    if use.any():
        rates = np.array([priced.settings[i].rate_per_s or 0.0 for i in priced.owner[use]])
        put(use, at_rate(_take(decode, use), _take(load, use), rates / priced.replicas[use]))
    use = scenario == "static"
    if use.any():
        put(use, static_batch(_take(decode, use), _take(load, use)))
    return Steady(**result)


def _load(priced: PricedServing, leaves: Leaves) -> Load:
    settings = [priced.settings[i] for i in priced.owner]
    users = np.array([s.users or np.inf for s in settings])
    users = np.where(priced.split, users, users / priced.replicas)
    users = np.where(np.isfinite(users), users, priced.max_sequences)
    return Load(
        users=users,
        input_tokens=np.array([s.input_tokens for s in settings]),
        output_tokens=np.array([s.output_tokens for s in settings]),
        max_sequences=priced.max_sequences,
        budget_tokens=priced.budget_tokens,
        waves=leaves.waves * np.array([s.scenario == "closed" for s in settings]),
        wait_steps=leaves.wait_steps,
        host_s=leaves.request_s,
    )


def wave_name(setting: ServingSetting) -> str:
    """The habit of a benchmark and an engine's way of taking prompts, together."""
    return f"{table_of(setting.row)} {setting.engine}"


def table_of(row: PublishedRow) -> str:
    """The source, short: all rounds of MLPerf are one, so are all pages of TensorRT-LLM's."""
    source = row.label("source") or "unknown"
    for word, name in _TABLES:
        if word in source:
            return name
    return source


_TABLES = (
    ("InferenceMAX", "InferenceX"),
    ("gap-analysis", "gap-analysis"),
    ("MLPerf", "MLPerf"),
    ("perf-overview", "TensorRT-LLM pages"),
    ("Neuron", "Neuron"),
    ("JetStream", "JetStream"),
    ("tpu-recipes", "tpu-recipes"),
    ("dstack", "dstack"),
)


def curve_name(setting: ServingSetting) -> str:
    """One configuration under several loads."""
    row = setting.row
    what = [
        table_of(row), setting.model.name, setting.node.name, setting.engine, setting.scenario,
        row.label("weight_prec"), row.label("parallel_note"), row.label("engine_version"),
        str(row.number("isl")), str(row.number("osl")), str(setting.num_devices),
        str(row.number("tp")),
    ]  # fmt: skip
    return "|".join(what)


def take_serving(priced: PricedServing, rows: Index, candidates: Index) -> PricedServing:
    """Those rows alone, each with the one candidate chosen for it."""

    def machines(part: Machines) -> Machines:
        return Machines(
            volumes=_take(part.volumes, candidates),
            sold=_take(part.sold, candidates),
            codes=part.codes[candidates],
        )

    return replace(
        priced,
        settings=tuple(priced.settings[i] for i in rows),
        owner=np.arange(len(rows)),
        decode=machines(priced.decode),
        prefill=machines(priced.prefill),
        split=priced.split[candidates],
        replicas=priced.replicas[candidates],
        prefill_replicas=priced.prefill_replicas[candidates],
        max_sequences=priced.max_sequences[candidates],
        budget_tokens=priced.budget_tokens[candidates],
        transfer_s=priced.transfer_s[candidates],
        fits=priced.fits[candidates],
        measured={name: values[rows] for name, values in priced.measured.items()},
    )


def _take(columns: Columns, use: NDArray[np.bool_] | Index) -> Columns:
    values = {}
    for field in fields(columns):  # type: ignore[arg-type]
        value = getattr(columns, field.name)
        values[field.name] = value[use] if np.ndim(value) else value
    return replace(columns, **values)  # type: ignore[type-var]


@cache
def _volumes(model: Model, layout: Layout) -> ServingVolumes:
    return serving_volumes(model, layout)


def _machines(settings: Sequence[ServingSetting], layouts: Sequence[Layout]) -> Machines:
    known: dict[tuple[str, str], HardwareColumns] = {}
    sold = []
    for setting, layout in zip(settings, layouts, strict=True):
        key = (setting.node.name, layout.precision)
        if key not in known:
            known[key] = hardware_columns(setting.node, layout.precision, 0.0)
        sold.append(known[key])
    return Machines(
        volumes=stack_volumes(
            [_volumes(s.model, p) for s, p in zip(settings, layouts, strict=True)]
        ),
        sold=HardwareColumns(
            **{
                f.name: np.concatenate([getattr(one, f.name) for one in sold])
                for f in fields(HardwareColumns)
            }
        ),
        codes=np.array([_CODES.get(p.precision, 0) for p in layouts]),
    )


def _replicas(setting: ServingSetting, layout: Layout) -> float:
    if setting.replicas is not None:
        return float(setting.replicas)
    return max((setting.num_devices or 1) / (layout.tensor * layout.pipeline), 1.0)


def _max_sequences(setting: ServingSetting, layout: Layout) -> float:
    """Sequences of a replica whose cache fits beside the weights, in the mean of their life."""
    accelerator = setting.node.accelerator
    most = _MOST_SEQUENCES.get(setting.engine, _USUAL_MOST_SEQUENCES)
    held, per_token = _held_bytes(setting.model, layout, int(most) // layout.groups)
    budget = _MEMORY_FRACTION * accelerator.memory.usable_bytes.value
    free = budget - held - framework_bytes(accelerator)
    tokens = setting.input_tokens + setting.output_tokens / 2.0
    fitting = layout.groups * free / (per_token * tokens)
    stated = setting.row.number("batch") if setting.scenario == "offline" else None
    return float(min(fitting, stated or np.inf, most * layout.groups))


@cache
def _held_bytes(model: Model, layout: Layout, sequences: int) -> tuple[float, float]:
    """Weights and buffers of a device, and what a token's cache takes there."""
    held = weights_per_device_bytes(model, layout)
    held += buffer_bytes(model, layout, int(_BUDGET_TOKENS), sequences)
    return held, kv_bytes_per_token(model, layout)


def _transfer_s(setting: ServingSetting, layout: Layout) -> float:
    """Keys and values of a prompt, from the devices of the smaller replica side by side, inside
    the scale-up domain where both fit."""
    if setting.prefill is None:
        return 0.0
    size = setting.input_tokens * kv_bytes(layout) * cache_elements(setting.model)
    size *= setting.model.layers
    senders = min(setting.prefill.tensor, layout.tensor)
    up, out = setting.node.link("scale-up"), setting.node.link("scale-out")
    inside = up is not None and up.domain >= setting.prefill.tensor + layout.tensor
    link = up if inside else out or up
    assert link is not None, "a machine without any link"
    return link.latency_s.value + size / (senders * link.bandwidth_bytes_per_s.value)


def _measured(settings: Sequence[ServingSetting]) -> dict[str, Array]:
    columns: dict[str, list[float]] = {"ttft": [], "tpot": [], "tokens": []}
    for setting in settings:
        row = setting.row
        ttft, tpot = row.number("ttft_ms"), row.number("tpot_ms")
        columns["ttft"].append(1e-3 * ttft if ttft else np.nan)
        columns["tpot"].append(1e-3 * tpot if tpot else np.nan)
        tokens = row.number("out_tok_s")
        each = row.number("out_tok_s_per_accel")
        if not tokens and each and setting.num_devices:
            tokens = each * setting.num_devices
        scored = tokens and setting.scenario != "poisson"
        columns["tokens"].append(tokens if scored and tokens else np.nan)
    return {name: np.array(values) for name, values in columns.items()}
