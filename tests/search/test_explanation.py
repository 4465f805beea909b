"""One plan taken apart, and two compared: parts add up, and a cause gets what it caused."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

import pytest

from tests.fleets import figure
from tests.machines import calibrated_fleet
from tests.search.machines import A100, B200, H100, document
from tests.workloads import gpt2_model, train
from twofold.document import PlanDocument, make_document
from twofold.errors import InputError
from twofold.fleet import Accelerator, MemoryTier, Node
from twofold.model import Model
from twofold.perf import estimate
from twofold.plan import Plan
from twofold.report.explain_text import comparison_text, explanation_text
from twofold.search.explanation import Comparison, compare, explain

MODEL = Model(
    name="test-7b", layers=32, hidden=4096, heads=32, kv_heads=8, ffn=14336, vocab=32000,
    max_seq_len=8192, norm="rmsnorm", activation="swiglu", position="rotary", bias=False,
    tied_embeddings=False,
)  # fmt: skip
PLAN = Plan(
    data_degree=4, tensor_degree=4, pipeline_degree=2, sequence_parallel=True, zero_stage=1,
    micro_batch=1, precision="bf16",
)  # fmt: skip
DATE = "2025-11"


def doc(node: Node = H100, model: Model = MODEL, batch: int = 128, **plan: Any) -> PlanDocument:
    pool = plan.pop("pool_changes", {})
    return document(model, node, replace(PLAN, **plan), global_batch=batch, seq_len=4096, **pool)


def against(a: PlanDocument, b: PlanDocument, **changes: Any) -> Comparison:
    return compare(a, b, **({"date_a": DATE, "date_b": DATE} | changes))


def with_chip(node: Node, **changes: Any) -> Node:
    return replace(node, accelerator=replace(node.accelerator, **changes))


def faster(accelerator: Accelerator, factor: float) -> dict[str, Any]:
    return {
        name: replace(rate, value=rate.value * factor)
        for name, rate in accelerator.flop_per_s.items()
    }


def test_every_account_of_a_plan_adds_up() -> None:
    explained = explain(doc(recompute="full"), date=DATE)
    outcome = explained.estimate.outcome
    assert explained.num_devices == 32
    for parts, total in (
        (outcome.step_parts_s, outcome.step_time_s),
        (outcome.memory_parts_bytes, outcome.peak_memory_bytes),
        (explained.run_parts_s, outcome.time_s),
        (explained.cost_parts_usd, outcome.cost_usd),
        (outcome.energy_parts_j, outcome.energy_j),
        (explained.carbon_parts_kgco2e, outcome.carbon_kgco2e),
    ):
        assert total is not None
        assert parts
        assert min(parts.values()) >= 0
        assert math.fsum(parts.values()) == pytest.approx(total, rel=1e-9)
    assert explained.run_parts_s["lost to failures"] > 0
    assert explained.run_parts_s["recompute"] > 0
    assert explained.bound_step_s is not None
    assert explained.mfu == pytest.approx(explained.bound_step_s / outcome.step_time_s)
    assert 0 < explained.mfu < 1


def test_what_is_not_known_is_empty_and_said() -> None:
    unpriced = document(
        MODEL, with_chip(H100, power_max_w=None), PLAN, global_batch=128, seq_len=4096,
        usd_per_device_hour=None,
    )  # fmt: skip
    explained = explain(unpriced, date=DATE)
    assert explained.cost_parts_usd == {}
    assert explained.carbon_parts_kgco2e == {}
    text = explanation_text(explained)
    assert "money: unknown" in text
    assert "energy: unknown" in text
    comparison = against(unpriced, unpriced)
    assert comparison.cost is None
    assert comparison.energy is None
    assert "cost: no ratio" in comparison_text(comparison)


def test_a_calibrated_machine_is_explained_by_its_own_estimate() -> None:
    fleet, model, workload = calibrated_fleet(), gpt2_model(), train()
    plan = Plan(micro_batch=8, pool=fleet.pools[0].name)
    fields: dict[str, Any] = {
        "model": model, "workload": workload, "fleet": fleet, "plan": plan, "seed": 0,
        "twofold_version": "0",
    }  # fmt: skip
    guess = estimate(model, workload, fleet, plan)
    explained = explain(make_document(estimate=guess, **fields))
    assert explained.estimate == guess
    assert math.fsum(explained.run_parts_s.values()) == pytest.approx(guess.outcome.time_s)
    assert "gemm" in explanation_text(explained)
    with pytest.raises(InputError, match="no estimate"):
        explain(make_document(estimate=None, **fields))
    with pytest.raises(InputError, match="calibrated"):
        compare(make_document(estimate=guess, **fields), make_document(estimate=guess, **fields))


def test_a_plan_that_overfills_the_host_does_not_fit() -> None:
    roomy = explain(doc(offload="optimizer"), date=DATE)
    assert roomy.fits
    memory = MemoryTier(name="host", usable_bytes=figure(1e9, "B"))
    tight = explain(doc(replace(H100, host_memory=(memory,)), offload="optimizer"), date=DATE)
    assert tight.estimate.outcome.peak_memory_bytes == roomy.estimate.outcome.peak_memory_bytes
    assert not tight.fits
    assert "DOES NOT FIT the host memory" in explanation_text(tight)


def test_an_old_estimate_is_remarked_on() -> None:
    document_ = doc()
    guess = explain(document_, date=DATE).estimate
    assert explain(replace(document_, estimate=guess), date=DATE).remark == ""
    assert "was written with" in explain(replace(document_, estimate=guess), date="2035-01").remark


def test_a_date_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="not a month"):
        explain(doc(), date="last year")


def test_a_plan_against_itself() -> None:
    comparison = against(doc(), doc())
    assert comparison.time.ratio == 1.0
    assert comparison.time.causes == ()
    assert (comparison.low, comparison.high) == (1.0, 1.0)
    assert comparison.cost is not None
    assert comparison.cost.ratio == 1.0
    assert "nothing differs" in comparison_text(comparison)


_WIDER = replace(
    H100,
    links=tuple(
        replace(link, bandwidth_bytes_per_s=figure(2 * link.bandwidth_bytes_per_s.value, "B/s"))
        for link in H100.links
    ),
)
_FASTER_MEMORY = with_chip(
    H100, memory=replace(H100.accelerator.memory, bandwidth_bytes_per_s=figure(6e12, "B/s"))
)


@pytest.mark.parametrize(
    ("cause", "b"),
    [
        ("chip rate", doc(with_chip(H100, flop_per_s=faster(H100.accelerator, 2.0)))),
        ("memory", doc(_FASTER_MEMORY)),
        ("link", doc(_WIDER)),
        ("devices", doc(data_degree=8)),
        ("precision", doc(precision="fp8")),
        ("parallel layout", doc(data_degree=8, tensor_degree=2)),
        ("recompute", doc(recompute="full")),
        ("attention kernel", doc(attention="explicit")),
        ("model", doc(model=replace(MODEL, ffn=2 * MODEL.ffn))),
        ("workload", doc(batch=256)),
        ("software age", doc(with_chip(H100, launched="2025-01"))),
    ],
)
def test_one_planted_change_is_the_one_cause(cause: str, b: PlanDocument) -> None:
    comparison = against(doc(), b)
    (found,) = comparison.time.causes
    assert found.name == cause
    assert found.factor == pytest.approx(comparison.time.ratio)
    assert found.alone == pytest.approx(comparison.time.ratio)
    assert comparison.time.ratio != pytest.approx(1.0, abs=1e-6)
    assert comparison.left_out == ()


def test_price_and_facility_are_factors_of_their_own() -> None:
    cheap = {"usd_per_node_hour": figure(12.0, "USD/h"), "pue": figure(1.5, "1")}
    comparison = against(doc(), doc(pool_changes=cheap))
    assert comparison.time.ratio == 1.0
    assert comparison.cost is not None
    assert comparison.energy is not None
    assert [(c.name, c.factor) for c in comparison.cost.causes] == [("price", 0.5)]
    assert [(c.name, c.factor) for c in comparison.energy.causes] == [
        ("facility", pytest.approx(1.25))
    ]


def test_carbon_has_causes_of_its_own() -> None:
    """A cleaner grid and machines that took more to make, under one plan on one machine."""
    clean = {"grid_kgco2e_per_kwh": figure(0.05, "kgCO2e/kWh")}
    heavy = with_chip(H100, embodied_kgco2e=figure(600.0, "kg"))
    comparison = against(doc(), doc(heavy, pool_changes=clean))
    assert comparison.carbon is not None
    causes = {cause.name: cause.factor for cause in comparison.carbon.causes}
    assert set(causes) == {"electricity", "manufacture"}
    assert causes["electricity"] < 1 < causes["manufacture"]
    outcomes = [side.estimate.outcome for side in (comparison.a, comparison.b)]
    kgco2e = [outcome.carbon_kgco2e for outcome in outcomes]
    assert comparison.carbon.ratio == pytest.approx(kgco2e[1] / kgco2e[0])  # type: ignore[operator]
    assert "carbon per token, b over a" in comparison_text(comparison)
    unknown = doc(pool_changes={"grid_kgco2e_per_kwh": None})
    assert against(doc(), unknown).carbon is None
    assert "carbon: no ratio" in comparison_text(against(doc(), unknown))


def test_ratios_are_those_of_the_estimates_and_every_account_multiplies() -> None:
    a, b = doc(), doc(B200, precision="fp8", data_degree=16, tensor_degree=2, recompute="full")
    comparison = against(a, b)
    one, other = (explain(side, date=DATE).estimate.outcome for side in (a, b))
    assert one.cost_usd is not None
    assert other.cost_usd is not None
    assert one.energy_j is not None
    assert other.energy_j is not None
    assert one.carbon_kgco2e is not None
    assert other.carbon_kgco2e is not None
    for attribution, ratio in (
        (comparison.carbon, other.carbon_kgco2e / one.carbon_kgco2e),
        (comparison.time, other.step_time_s / one.step_time_s),
        (comparison.cost, other.cost_usd / one.cost_usd),
        (comparison.energy, other.energy_j / one.energy_j),
    ):
        assert attribution is not None
        assert attribution.ratio == pytest.approx(ratio, rel=1e-9)
        product = math.prod(cause.factor for cause in attribution.causes)
        assert product == pytest.approx(ratio, rel=1e-9)
        assert abs(attribution.residual) < 1e-9
    json.dumps(asdict(comparison), allow_nan=False)


def test_coalitions_that_cannot_run_are_left_out_and_told() -> None:
    """The chip cannot become an A100 before the precision is bf16: half of all orders."""
    comparison = against(doc(precision="fp8"), doc(A100))
    assert comparison.left_out
    for one in comparison.left_out:
        assert "chip rate" in one.changed
        assert "precision" not in one.changed
        assert "fp8" in one.reason
    assert 2 * len(comparison.left_out) * 2 == comparison.num_coalitions
    assert 2 * comparison.time.num_orders == comparison.time.num_possible
    alone = {cause.name: cause.alone for cause in comparison.time.causes}
    assert alone["chip rate"] is None
    assert alone["precision"] is not None
    blind = [i for i in comparison.interactions if i.factor is None]
    assert all("chip rate" in (i.first, i.second) for i in blind)
    text = comparison_text(comparison)
    assert "cannot run" in text
    assert "fp8" in text


def test_heads_that_do_not_divide_are_left_out() -> None:
    narrow = replace(MODEL, heads=20, kv_heads=4, hidden=2560)
    comparison = against(
        doc(model=narrow), doc(data_degree=2, tensor_degree=8)
    )  # 8 does not divide 20
    assert {one.changed for one in comparison.left_out} == {("parallel layout",)}
    assert "tensor does not divide the attention heads" in comparison.left_out[0].reason


def test_causes_that_no_order_separates_are_one() -> None:
    """Eight devices hold no layout of 64, and 256 replicas are too many for the batch."""
    small = doc(data_degree=8, tensor_degree=1, pipeline_degree=1, sequence_parallel=False)
    large = doc(data_degree=4, tensor_degree=8, pipeline_degree=8)
    comparison = against(small, large)
    (cause,) = comparison.time.causes
    assert comparison.merged == ("devices", "parallel layout")
    assert cause.name == "devices + parallel layout"
    assert cause.factor == pytest.approx(comparison.time.ratio)
    assert "one cause" in comparison_text(comparison)


def test_too_little_memory_is_priced_and_flagged() -> None:
    tiny = with_chip(H100, memory=replace(H100.accelerator.memory, usable_bytes=figure(5e9, "B")))
    comparison = against(doc(), doc(tiny))
    assert comparison.overfull == (("memory",),)
    assert "DOES NOT FIT" in comparison_text(comparison)
    assert "too small" in explain(doc(tiny), date=DATE).binds


def test_intervals_are_narrower_the_more_two_plans_share() -> None:
    def width(b: PlanDocument) -> float:
        comparison = against(doc(), b)
        return math.log(comparison.high / comparison.low)

    same_model = width(doc(recompute="full"))
    same_die = width(doc(model=replace(MODEL, ffn=7168)))
    assert 0 < same_model < same_die < width(doc(B200))


def test_a_published_factor_is_held_against_the_interval() -> None:
    b = doc(B200)
    ratio = against(doc(), b).time.ratio
    assert against(doc(), b, published=(ratio, ratio)).published_holds
    assert not against(doc(), b, published=(ratio, 10 * ratio)).published_holds
    text = comparison_text(against(doc(), b, published=(10 * ratio, 10 * ratio)))
    assert "DOES NOT lie" in text
    assert text.splitlines()[-1].startswith("b takes")


def test_a_plan_that_cannot_run_is_refused() -> None:
    with pytest.raises(InputError, match="cannot run"):
        against(doc(), doc(A100, precision="fp8"))
