from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.fleets import plain_fleet
from tests.machines import calibrated_fleet, curves_of, with_curves
from tests.workloads import gpt2_model, train
from twofold.errors import InputError
from twofold.plan import Plan
from twofold.search import check_plan
from twofold.search.space import divisors, make_levers

FLEET = calibrated_fleet(compiler=False)
PLAN = Plan(micro_batch=4, threads=2)


def refused(**changes: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        check_plan(gpt2_model(), train(), FLEET, replace(PLAN, **changes))
    return caught.value


def test_a_legal_plan_passes() -> None:
    check_plan(gpt2_model(), train(), FLEET, PLAN)


@pytest.mark.parametrize(
    ("changes", "what", "at", "help"),
    [
        ({"micro_batch": 3}, "does not divide the global batch of 8", "micro_batch", "1, 2, 4, 8"),
        ({"threads": 3}, "3 threads on 2 cores", "threads", "at most 2"),
        ({"precision": "fp8"}, "no precision 'fp8'", "precision", "fp32, tf32, bf16"),
        ({"attention": "flash"}, "no attention 'flash'", "attention", "sdpa, explicit"),
        ({"recompute": "some"}, "no recompute 'some'", "recompute", "none, full"),
        ({"optimizer_kernel": "x"}, "no optimizer_kernel 'x'", "optimizer_kernel", "fused"),
        ({"precision": "tf32"}, "tf32 not measured on 'made-up-cpu'", "levers", "calibrate"),
        ({"compile": True}, "no compiler", "levers", "another"),
        ({"tensor_degree": 2}, "more than one device", "tensor_degree", "1"),
        ({"pool": "cloud"}, "no pool 'cloud'", "made-up", "local"),
    ],
)
def test_an_illegal_lever_is_refused_with_what_to_do(
    changes: dict[str, Any], what: str, at: str, help: str
) -> None:
    error = refused(**changes)
    assert what in error.what
    assert at in (error.at or "")
    assert help in (error.help or "")


def test_sequences_longer_than_the_model_are_refused() -> None:
    with pytest.raises(InputError, match="made for 64"):
        check_plan(gpt2_model(max_seq_len=64), train(), FLEET, PLAN)


def test_an_uncalibrated_machine_is_refused() -> None:
    with pytest.raises(InputError, match="no measured curves") as caught:
        check_plan(gpt2_model(), train(), plain_fleet(), PLAN)
    assert "twofold calibrate" in (caught.value.help or "")


def test_the_orthogonal_precision_matters_only_to_muon() -> None:
    pool = FLEET.pools[0]
    assert make_levers(train(), pool).orthogonal_precision == ("fp32",)
    assert make_levers(train(optimizer="muon"), pool).orthogonal_precision == ("fp32", "bf16")


def test_threads_are_those_that_were_measured() -> None:
    curves = curves_of(FLEET)
    one = replace(curves, gemm=tuple(c for c in curves.gemm if c.threads == 1))
    assert make_levers(train(), with_curves(FLEET, one).pools[0]).threads == (1,)


def test_divisors() -> None:
    assert divisors(12) == (1, 2, 3, 4, 6, 12)
    assert divisors(1) == (1,)
