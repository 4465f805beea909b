"""Steps of serving: worked numbers by hand, and what must hold whatever the numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twofold.catalog import read_fleet
from twofold.document import part_hash
from twofold.errors import InputError
from twofold.fleet import Curves, Fleet, StepCurve
from twofold.model import num_parameters
from twofold.perf.serving import (
    PART_USE,
    PARTS,
    Steps,
    kv_transfer_s,
    phase_plan,
    replica,
    serving_memory,
    step_parts_s,
)
from twofold.perf.serving_memory import plan_layout, weights_per_device_bytes
from twofold.perf.serving_work import serving_volumes, touched_fraction
from twofold.serving_plan import PrefillPlan, ServingPlan
from twofold.sources import find_model

H200 = read_fleet(["h200-sxm:8"])
LLAMA = find_model("llama-3.1-70b")
DEEPSEEK = find_model("deepseek-v3")


def _plan(fleet: Fleet = H200, **levers: object) -> ServingPlan:
    return ServingPlan(pool=fleet.pools[0].name, **levers)  # type: ignore[arg-type]


def _steps(tokens: float, sequences: float, pairs: float, keys: float) -> Steps:
    return Steps(
        tokens=np.array([tokens]),
        sequences=np.array([sequences]),
        pairs=np.array([pairs]),
        keys=np.array([keys]),
    )


def _step_s(plan: ServingPlan, steps: Steps, model=LLAMA) -> float:  # type: ignore[no-untyped-def]
    return float(sum(v for v in step_parts_s(replica(model, H200, plan), steps).values())[0])


def test_volumes_of_llama_70b_by_hand() -> None:
    """80 layers of hidden 8192, 64 heads, 8 of keys, 28672 wide, over 8 ranks in bf16."""
    volumes = serving_volumes(LLAMA, plan_layout(_plan(tensor_degree=8)))
    attention = 8192 * (64 + 16) * 128 + 8192 * 8192
    block = attention + 3 * 8192 * 28672
    assert volumes.dense_weight_bytes == pytest.approx(2 * 80 * block / 8)
    flop = volumes.group_wide_flop + volumes.wide_flop
    assert flop == pytest.approx(2 * 80 * block / 8)
    assert volumes.head_weight_bytes == pytest.approx(2 * 8192 * 128256 / 8)
    assert volumes.key_bytes == pytest.approx(2 * 80 * 2 * 8 * 128 / 8)
    assert volumes.key_flop == pytest.approx(80 * 4 * 64 * 128 / 8)
    assert volumes.pair_flop == pytest.approx(80 * 4 * 64 * 128 / 8)
    assert volumes.group_reduced_bytes + volumes.reduced_bytes == pytest.approx(2 * 80 * 2 * 8192)


def test_latent_cache_of_deepseek_by_hand() -> None:
    """512 + 64 channels a token and layer, whole on every tensor rank; absorbed queries."""
    volumes = serving_volumes(DEEPSEEK, plan_layout(_plan(tensor_degree=8)))
    assert volumes.key_bytes == 2 * 61 * 576
    assert volumes.key_flop == pytest.approx(61 * 2 * 128 * (2 * 512 + 64) / 8)
    memory = serving_memory(DEEPSEEK, H200, _plan(tensor_degree=8, precision="fp8"))
    expanded = 2 * 61 * 128 * (192 + 128)
    assert memory.kv_bytes_per_token < expanded / 8


def test_weights_of_one_device_are_the_parameters() -> None:
    weights = weights_per_device_bytes(LLAMA, plan_layout(_plan(tensor_degree=1)))
    assert weights == pytest.approx(2 * num_parameters(LLAMA))


def test_experts_touched() -> None:
    """One token takes its 8 of 256; 64 tokens take 1 - (1 - 1/32)^64 of them."""
    assert touched_fraction(1.0, 8 / 256) == pytest.approx(8 / 256)
    assert touched_fraction(64.0, 8 / 256) == pytest.approx(1 - (31 / 32) ** 64)
    assert touched_fraction(1e6, 8 / 256) == pytest.approx(1.0)


def test_decoding_one_sequence_reads_the_weights() -> None:
    """Never faster than all weights of a rank at the memory's sold rate."""
    plan = _plan(tensor_degree=8)
    roof_s = 2 * num_parameters(LLAMA) * 0.97 / 8 / 4.8e12
    parts = step_parts_s(replica(LLAMA, H200, plan), _steps(1, 1, 0, 1000))
    assert parts["weights"][0] > roof_s
    assert parts["weights"][0] < 2.0 * roof_s
    assert max(parts, key=lambda name: float(parts[name][0])) in ("weights", "overhead")


def test_a_long_prompt_is_bound_by_arithmetic() -> None:
    parts = step_parts_s(
        replica(LLAMA, H200, _plan(tensor_degree=8)), _steps(8192, 1, 8192 * 4096, 0)
    )
    flop = 2 * 70e9 * 8192 / 8
    assert parts["weights"][0] + parts["products"][0] > flop / 989e12
    assert parts["products"][0] > parts["weights"][0]


def test_parts_are_named_and_have_a_use() -> None:
    parts = step_parts_s(replica(LLAMA, H200, _plan(tensor_degree=8)), _steps(8, 8, 0, 800))
    assert tuple(parts) == PARTS
    assert set(PART_USE) == set(PARTS)


@settings(max_examples=40, deadline=None)
@given(
    decoding=st.integers(1, 500),
    prompt=st.integers(0, 8000),
    context=st.integers(1, 8000),
    model=st.sampled_from(["llama-3.1-70b", "deepseek-v3", "gpt-oss-120b", "qwen3-30b-a3b"]),
    groups=st.sampled_from([1, 8]),
)
def test_more_of_anything_is_never_faster(
    decoding: int, prompt: int, context: int, model: str, groups: int
) -> None:
    plan = _plan(
        tensor_degree=8,
        precision="fp8",
        attention_data_degree=groups,
        expert_degree=8 if model == "deepseek-v3" else 1,
    )
    priced = replica(find_model(model), H200, plan)
    base = (decoding + prompt, decoding, prompt * prompt / 2, decoding * context)
    grown = [
        base,
        (base[0] + 8, *base[1:]),
        (base[0], base[1], base[2] + 1e4, base[3]),
        (*base[:3], base[3] + 1e4),
    ]
    columns = np.array(grown, dtype=float).T
    steps = Steps(tokens=columns[0], sequences=columns[1], pairs=columns[2], keys=columns[3])
    parts = step_parts_s(priced, steps)
    assert all(np.all(value >= 0) for value in parts.values())
    times = np.sum([np.broadcast_to(value, 4) for value in parts.values()], axis=0)
    assert np.all(times[1:] >= times[0] * (1 - 1e-12))


@pytest.mark.parametrize("name", ["llama-3.1-70b", "deepseek-v3", "mixtral-8x7b", "gpt-oss-120b"])
def test_more_devices_never_hold_more_weights_each(name: str) -> None:
    model = find_model(name)
    held = [
        weights_per_device_bytes(model, plan_layout(_plan(tensor_degree=t, precision="bf16")))
        for t in (1, 2, 4, 8)
    ]
    assert held == sorted(held, reverse=True)
    spread = plan_layout(_plan(tensor_degree=8, pipeline_degree=2))
    assert weights_per_device_bytes(model, spread) < held[-1]


def test_fewer_bits_leave_more_blocks() -> None:
    wide = serving_memory(LLAMA, H200, _plan(tensor_degree=4))
    narrow = serving_memory(LLAMA, H200, _plan(tensor_degree=4, weight_precision="fp8"))
    cached = serving_memory(LLAMA, H200, _plan(tensor_degree=4, kv_precision="fp8"))
    assert narrow.num_blocks > wide.num_blocks
    assert cached.kv_bytes_per_token == wide.kv_bytes_per_token / 2
    assert cached.num_blocks > 1.9 * wide.num_blocks


def test_memory_parts_stay_within_the_share() -> None:
    plan = _plan(tensor_degree=8)
    memory = serving_memory(LLAMA, H200, plan)
    usable = H200.pools[0].node.accelerator.memory.usable_bytes.value
    total = sum(memory.parts_bytes.values())
    block = plan.block_tokens * memory.kv_bytes_per_token
    assert 0.9 * usable - block < total <= 0.9 * usable


def test_a_model_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="no room for a cache"):
        serving_memory(DEEPSEEK, H200, _plan(tensor_degree=4))
    with pytest.raises(InputError, match="do not fit"):
        serving_memory(LLAMA, H200, _plan(tensor_degree=8, num_blocks=10**9))


def test_what_does_not_generate_is_refused() -> None:
    with pytest.raises(InputError, match="does not generate"):
        replica(find_model("bert-base"), H200, _plan())


def test_a_measured_curve_prices_the_steps_of_its_model() -> None:
    pool = H200.pools[0]
    curve = StepCurve(
        model_hash=part_hash(LLAMA), precision="bf16", weight_precision="same", threads=1,
        step_s=1e-2, token_s=1e-4, sequence_s=1e-5, pair_s=1e-9, key_s=1e-7, spread=0.04,
    )  # fmt: skip
    accelerator = replace(pool.node.accelerator, curves=Curves(framework="torch", steps=(curve,)))
    fleet = replace(H200, pools=(replace(pool, node=replace(pool.node, accelerator=accelerator)),))
    priced = replica(LLAMA, fleet, _plan())
    total = sum(v for v in step_parts_s(priced, _steps(10, 2, 50, 300)).values())
    assert float(total[0]) == pytest.approx(1e-2 + 1e-3 + 2e-5 + 5e-8 + 3e-5)
    assert priced.spread == pytest.approx(1.645 * 0.04)
    assert replica(LLAMA, fleet, _plan(precision="fp8")).spread != priced.spread
    with pytest.raises(InputError, match="one device"):
        replica(LLAMA, fleet, _plan(tensor_degree=2))


def test_keys_and_values_cross_between_unlike_pools() -> None:
    fleet = read_fleet(["h100-sxm:8", "h200-sxm:8"])
    plan = ServingPlan(
        pool=fleet.pools[1].name,
        tensor_degree=4,
        prefill=PrefillPlan(pool=fleet.pools[0].name, tensor_degree=2, precision="fp8"),
    )
    one, two = (kv_transfer_s(LLAMA, fleet, plan, tokens) for tokens in (1000.0, 2000.0))
    size = 1000 * 2 * 80 * 2 * 8 * 128
    assert two - one >= size / (2 * 50e9)
    other = phase_plan(plan, "prefill")
    assert (other.pool, other.tensor_degree, other.precision) == (fleet.pools[0].name, 2, "fp8")
    with pytest.raises(InputError, match="where it decodes"):
        phase_plan(_plan(), "prefill")
