"""What binds a plan, what a factor between two is worth, and which plans make a front."""

from __future__ import annotations

from dataclasses import replace

import pytest

from twofold.catalog import resolve_pool
from twofold.errors import InputError
from twofold.perf.fleet import Problem, estimate_plans, make_problem
from twofold.perf.speeds import fitted_efficiencies
from twofold.plan import Plan
from twofold.search.given import check_given, plan_words, read_given_plan
from twofold.search.options import Option, gain, is_same_plan, make_option
from twofold.search.reach import Wanted
from twofold.sources.models import find_model
from twofold.workload import Recipe, Train


def problem(fleet: str = "dgx-h100:4") -> Problem:
    workload = Train(
        tokens=10**10, seq_len=4096, recipe=Recipe(learning_rate=1e-3, global_batch=128)
    )
    return make_problem(
        find_model("llama-3.1-8b"), workload, resolve_pool(fleet), fitted_efficiencies(), "2026-11"
    )


def option(words: str, fleet: str = "dgx-h100:4") -> Option:
    asked = problem(fleet)
    plan = read_given_plan(words, asked)
    return make_option("given", asked, plan, estimate_plans(asked, [plan])[0])


def test_the_fractions_of_the_time_add_up_and_the_largest_is_named_first() -> None:
    for words in ("tp=1 mb=1", "tp=8 mb=1", "pp=8 mb=4", "tp=32 mb=1 recompute=full"):
        binding = option(words).binding
        assert sum(binding.fractions.values()) == pytest.approx(1.0)
        ranked = sorted(binding.fractions.values(), reverse=True)
        assert [share for _, share in binding.largest] == ranked[:2]
        assert binding.words.startswith(f"{binding.cause} {ranked[0]:.0%}, ")
    assert option("tp=1 mb=1").binding.cause == "compute"
    assert option("tp=1 mb=1 recompute=full").binding.largest[1][0] == "recompute"


def test_the_binding_link_is_the_one_that_the_ranks_span() -> None:
    inside, across = option("tp=8 mb=1").binding, option("tp=32 mb=1").binding
    assert inside.largest[1][0] == "nvlink4"
    assert across.cause == "infiniband"
    assert option("pp=16 mb=1 dp=2 schedule=gpipe").binding.fractions["bubble"] > 0.05


def test_the_interval_of_a_run_is_that_of_its_steps() -> None:
    one = option("tp=2 mb=1")
    outcome = one.estimate.outcome
    slow = replace(outcome, step_time_s=one.estimate.step_time_high_s, step_parts_s={})
    assert one.time_s.value == outcome.time_s
    assert one.time_s.high == pytest.approx(slow.time_s)


def test_a_factor_is_surer_on_one_die_than_between_two() -> None:
    best, worse, other = option("tp=1 mb=1"), option("tp=8 mb=1"), option("tp=1", "dgx-b200:4")
    same = gain(best, worse, "time")
    across = gain(other, best, "time")
    assert same is not None
    assert across is not None
    assert same.value == pytest.approx(worse.time_s.value / best.time_s.value)
    assert same.low < same.value < same.high
    assert same.high / same.low < across.high / across.low
    assert gain(worse, best, "time").value == pytest.approx(1 / same.value)  # type: ignore[union-attr]


def test_no_factor_is_made_of_an_unknown_figure() -> None:
    asked = option("tp=1 mb=1")
    assert asked.estimate.outcome.carbon_kgco2e is None
    assert gain(asked, asked, "carbon") is None


def test_every_legal_plan_is_said_and_read_alike() -> None:
    asked = problem()
    for words in (
        "bf16 dp=32 mb=1",
        "bf16 dp=4 tp=2 pp=4 vpp=2 mb=2 zero=1 sp schedule=interleaved",
        "fp8 dp=8 tp=2 cp=2 mb=1 zero=3 shard=8 sp recompute=full layers=3",
        "bf16 dp=16 tp=2 mb=1 zero=1 attention=explicit offload=optimizer",
    ):
        plan = read_given_plan(words, asked)
        assert read_given_plan(plan_words(plan), asked) == plan
        check_given(plan, asked, "test")


def test_a_plan_without_sharding_is_said_so() -> None:
    plan = Plan(pool="dgx-h100", data_degree=32, micro_batch=1, precision="bf16", zero_stage=0)
    again = read_given_plan(plan_words(plan), problem())
    assert again.zero_stage == 0
    plan = replace(plan, data_degree=16, tensor_degree=2, sequence_parallel=False)
    assert not read_given_plan(plan_words(plan), problem()).sequence_parallel


def test_enough_tokens_are_those_asked_for_or_twenty_for_each_parameter() -> None:
    assert Wanted(tokens=10).words == "10 tokens"
    assert "20 tokens" in Wanted().words


def test_the_same_plan_is_known_by_its_words_and_pool() -> None:
    assert is_same_plan(option("mb=1"), option("mb=1"))
    assert not is_same_plan(option("mb=1"), option("mb=2"))
    assert not is_same_plan(option("mb=1 dp=32"), option("mb=1 dp=32", "dgx-b200:4"))


def test_more_recomputed_layers_than_a_stage_has_are_refused() -> None:
    assert read_given_plan("pp=4 recompute=full layers=8", problem()).recompute_layers == 8
    with pytest.raises(InputError, match="more than the 8 of a pipeline stage"):
        read_given_plan("pp=4 recompute=full layers=9", problem())


def test_what_is_offloaded_must_fit_the_machine_too() -> None:
    """70 billion parameters' optimizer state (12 bytes each) is more than one machine has."""
    asked = problem("dgx-h100:1")
    asked = make_problem(
        find_model("llama-3.1-70b"), asked.workload, asked.pool, asked.fit, asked.date
    )
    tier = asked.pool.node.host_memory[0]
    small = replace(tier, usable_bytes=replace(tier.usable_bytes, value=0.5e12))
    tight = replace(
        asked, pool=replace(asked.pool, node=replace(asked.pool.node, host_memory=(small,)))
    )
    for case, fits in ((asked, True), (tight, False)):
        plan = read_given_plan("tp=8 mb=1 zero=1 recompute=full offload=optimizer", case)
        one = make_option("given", case, plan, estimate_plans(case, [plan])[0])
        assert (one.estimate.outcome.peak_memory_bytes or 0.0) < one.usable_bytes
        assert one.fits is one.fits_host is fits
        assert one.as_mapping()["fits"] is fits
        held = replace(plan, offload="none")
        assert make_option("held", case, held, estimate_plans(case, [held])[0]).fits_host
