from __future__ import annotations

import pytest

from tests.fleets import plain_fleet
from tests.machines import calibrated_fleet
from tests.workloads import gpt2_model, modern_model, train
from twofold.model import training_flop_per_token
from twofold.perf import estimate
from twofold.perf.roofs import roof_bytes_per_s, roof_flop_per_s, roofline_rows, roofline_s
from twofold.plan import Plan

FLEET = calibrated_fleet()
PLAN = Plan(micro_batch=4, threads=2, orthogonal_precision="fp32")


def test_roofs_are_the_figures_of_the_device() -> None:
    assert roof_flop_per_s(FLEET) == {"fp32": 1.44e11, "bf16": 2.88e11}
    assert roof_bytes_per_s(FLEET) == 2e10
    assert roof_bytes_per_s(plain_fleet()) is None


def test_the_roofline_is_the_slower_of_the_two() -> None:
    assert roofline_s(2e9, 1e9, 1e9, 2e9) == pytest.approx(2.0)
    assert roofline_s(1e9, 8e9, 1e9, 2e9) == pytest.approx(4.0)


@pytest.mark.parametrize("model", [gpt2_model(), modern_model()], ids=["gpt2", "modern"])
def test_rows_hold_all_flop_and_all_time_but_the_optimizers(model) -> None:
    workload = train()
    rows = roofline_rows(model, workload, FLEET, PLAN)
    flop = training_flop_per_token(model, workload.seq_len) * workload.tokens_per_step
    assert sum(row["flop"] for row in rows) == pytest.approx(flop)
    parts = estimate(model, workload, FLEET, PLAN).outcome.step_parts_s
    layers_s = parts["gemm"] + parts["attention"] + parts["elementwise"]
    rows_s = sum(row["time_s"] for row in rows)
    assert layers_s < rows_s < layers_s + parts["overhead"]
    assert len({row["name"] for row in rows}) == len(rows)
    assert all(row["bytes"] > 0 for row in rows)


def test_recompute_is_time_but_no_model_flop() -> None:
    workload = train()
    plain = roofline_rows(gpt2_model(), workload, FLEET, PLAN)
    full = roofline_rows(
        gpt2_model(), workload, FLEET, Plan(micro_batch=4, threads=2, recompute="full")
    )
    assert [row["flop"] for row in plain] == [row["flop"] for row in full]
    assert sum(row["time_s"] for row in full) > 1.1 * sum(row["time_s"] for row in plain)
