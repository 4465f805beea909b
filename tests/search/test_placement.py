"""Plans over unlike pools: what they are compared with, what moves them, what is refused."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.fleets import figure
from tests.machines import calibrated_fleet
from tests.search.machines import A100, H100
from tests.workloads import gpt2_model, modern_model, train
from twofold.errors import InputError, NegativeAnswer
from twofold.fleet import Fleet, Link, Node, Pool, PoolLink
from twofold.model import Model
from twofold.perf.speeds import fitted_efficiencies
from twofold.policy.ranks import blocks_of_stages
from twofold.policy.shares import num_micro_steps, shares_of
from twofold.search.placement.answer import PlacementAnswer, place
from twofold.search.placement.data_parallel import micro_batch_counts
from twofold.search.placement.question import Question, make_question
from twofold.workload import Recipe, Train

FIT = fitted_efficiencies()
BATCH = 48


def here(name: str, count: int, cores: float, *, port: float = 1e9, **changes: Any) -> Pool:
    """So many processes of the made-up processor."""
    pool = calibrated_fleet(**changes).pools[0]
    gloo = Link(name="gloo", latency_s=figure(1e-4, "s"), bandwidth_bytes_per_s=figure(1e9, "B/s"))
    link = replace(gloo, name="port", scope="scale-out", bandwidth_bytes_per_s=figure(port, "B/s"))
    return replace(
        pool,
        name=name,
        num_nodes=count,
        node=replace(pool.node, links=(gloo, link)),
        cpu_cores=figure(cores, "1"),
    )


def asked(*pools: Pool, link: float | None = None, **changes: Any) -> Question:
    links = ()
    if link is not None:
        links = (
            PoolLink(
                between=(pools[0].name, pools[1].name),
                latency_s=figure(1e-3, "s"),
                bandwidth_bytes_per_s=figure(link, "B/s"),
            ),
        )
    fields: dict[str, Any] = {
        "model": modern_model(),
        "workload": train(global_batch=BATCH),
        "fleet": Fleet(name="f", pools=pools, links=links),
        "fit": FIT,
        "date": "2026-11",
    }
    return make_question(**(fields | changes))


FAST, SLOW = here("fast", 2, 0.75), here("slow", 1, 0.25)


@cache
def usual() -> PlacementAnswer:
    return place(asked(FAST, SLOW))


def steps(answer: PlacementAnswer) -> dict[str, float]:
    return {one.kind: one.step_s for one in reversed(answer.best)}


def test_two_fast_and_a_slow_one() -> None:
    answer = usual()
    best = answer.best[0]
    assert best.kind == "uneven shares"
    assert answer.even is not None
    assert answer.subset is not None
    assert [part.pool for part in answer.subset.parts] == ["fast"]
    assert [part.sequences for part in answer.even.parts] == [((2, 16),), ((1, 16),)]
    fast, slow = best.parts
    assert fast.busy_s == pytest.approx(slow.busy_s, rel=0.15)
    assert answer.ideal_over_even == pytest.approx(1.75 / 0.75, rel=0.12)
    assert answer.ideal_over_subset == pytest.approx(1.75 / 1.5, rel=0.05)
    assert 1.9 < answer.gain_over(answer.even).value < 2.5
    assert 1.0 < answer.gain_over(answer.subset).value < 1.2
    assert "quality for nothing" in answer.why_not


def test_the_saved_plan_is_what_the_runtime_executes() -> None:
    answer = usual()
    plan = answer.best[0].plan
    shares = shares_of(plan, BATCH)
    assert sum(shares) == BATCH
    assert len(shares) == plan.num_ranks == 3
    micro_steps = num_micro_steps(plan, shares)
    assert micro_steps <= min(shares)
    assert -(-max(shares) // micro_steps) == plan.micro_batch
    piped = next(one.plan for one in answer.best if one.kind == "uneven stages")
    assert sum(len(blocks) for blocks in blocks_of_stages(piped, modern_model().layers)) == 4
    assert {stage.pool for stage in piped.stages} == {"fast", "slow"}


def test_every_estimate_adds_up() -> None:
    answer = place(asked(FAST, SLOW, link=1e5))
    for one in (*answer.best, *answer.offered, answer.even, answer.subset):
        assert one is not None
        outcome = one.estimate.outcome
        assert sum(outcome.step_parts_s.values()) == pytest.approx(one.step_s)
        assert min(outcome.step_parts_s.values()) >= -1e-9
        assert all(part.busy_s <= one.step_s * (1 + 1e-9) for part in one.parts)
        assert all(part.peak_bytes <= part.usable_bytes for part in one.parts)


def test_equal_pools_are_shared_out_evenly() -> None:
    answer = place(asked(here("a", 1, 0.5), here("b", 1, 0.5)))
    best = answer.best[0]
    assert best.kind == "even shares"
    assert answer.ideal_over_even == pytest.approx(1.0)
    assert answer.even is not None
    assert answer.gain_over(answer.even).value == pytest.approx(1.0)


@pytest.mark.parametrize("link", [3e5, 3e7])
def test_more_bandwidth_is_never_slower(link: float) -> None:
    slower, faster = (place(asked(FAST, SLOW, link=rate)) for rate in (link, 3 * link))
    assert faster.best[0].step_s <= slower.best[0].step_s
    before, after = steps(slower), steps(faster)
    assert all(after[kind] <= before[kind] + 1e-9 for kind in before if kind in after)


@pytest.mark.parametrize("cores", [0.2, 0.5])
def test_a_faster_pool_never_worsens(cores: float) -> None:
    slower, faster = (place(asked(FAST, here("slow", 1, quota))) for quota in (cores, 1.4 * cores))
    assert faster.best[0].step_s <= slower.best[0].step_s * (1 + 1e-9)


def test_a_link_too_slow_leaves_the_slow_pool_out_and_offers_local_updates() -> None:
    answer = place(asked(FAST, SLOW, link=5e5))
    assert answer.best[0].kind == "one pool"
    assert {one.kind for one in answer.offered} == {"local updates", "streaming"}
    for one in answer.offered:
        assert one.plan.local_steps > 1
        assert one.plan.zero_stage == 0
        assert one.step_s < answer.best[0].step_s
    streaming = next(one for one in answer.offered if one.kind == "streaming")
    assert streaming.plan.exchange_precision == "int8"
    assert streaming.plan.local_steps >= streaming.plan.exchange_fragments == 4


def test_memory_moves_sequences_to_the_pool_that_has_it() -> None:
    model, work = gpt2_model(hidden=256, heads=4), train(global_batch=BATCH, seq_len=512)
    free = place(asked(FAST, SLOW, model=model, workload=work))
    roomy = free.best[0].parts[0]
    tight = here("fast", 2, 0.75, memory_bytes=0.75 * roomy.peak_bytes)
    held = place(asked(tight, SLOW, model=model, workload=work))
    assert held.best[0].step_s >= free.best[0].step_s * (1 - 1e-9)
    for one in held.best:
        assert all(part.peak_bytes <= part.usable_bytes for part in one.parts)


def test_nothing_fits() -> None:
    small = [here(name, 1, 0.5, memory_bytes=1e6) for name in ("a", "b")]
    with pytest.raises(NegativeAnswer, match="leanest needs 'a'"):
        place(asked(*small))


def hall(name: str, node: Node, count: int = 1, **changes: Any) -> Pool:
    return Pool(name=name, node=node, num_nodes=count, **changes)


def billions() -> Model:
    return gpt2_model(
        layers=16, hidden=2048, heads=16, kv_heads=16, ffn=8192, vocab=32000, max_seq_len=2048
    )


def long_run(global_batch: int = 256) -> Train:
    recipe = Recipe(learning_rate=1e-3, global_batch=global_batch)
    return Train(text="stdlib", tokens=10**10, seq_len=2048, recipe=recipe)


def halls(*pools: Pool, link: float | None = None, **changes: Any) -> Question:
    return asked(*pools, link=link, **({"model": billions(), "workload": long_run()} | changes))


@cache
def two_halls() -> PlacementAnswer:
    price = figure(30.0, "USD/h")
    return place(
        halls(hall("h", H100, usd_per_node_hour=price), hall("a", A100, usd_per_node_hour=price))
    )


def test_unlike_accelerators_gain_less_than_their_peaks_promise() -> None:
    """Section 3c of the research by the fitted speeds: both factors, and no more than ideal."""
    answer = two_halls()
    assert answer.best[0].kind == "uneven shares"
    assert answer.even is not None
    assert answer.subset is not None
    assert answer.ideal_over_even is not None
    assert answer.ideal_over_subset is not None
    assert 1.0 < answer.gain_over(answer.even).value <= answer.ideal_over_even * 1.02
    assert 1.0 < answer.gain_over(answer.subset).value <= answer.ideal_over_subset * 1.05
    assert answer.gain_over(answer.even).value < 2.09
    piped = next(one for one in answer.best if one.kind == "uneven stages")
    assert piped.step_s == pytest.approx(answer.best[0].step_s, rel=0.25)


def test_money_and_energy_where_they_are_known() -> None:
    outcome = two_halls().best[0].estimate.outcome
    assert outcome.cost_usd == pytest.approx(2 * 30.0 * outcome.time_s / 3600.0)
    assert outcome.energy_j is not None
    assert outcome.energy_grade == "modelled"
    watts = outcome.energy_j / outcome.time_s / 16
    assert 200.0 < watts < 1200.0
    assert usual().best[0].estimate.outcome.energy_j is None  # under a quota
    assert usual().best[0].estimate.outcome.cost_usd is None


def test_micro_batch_counts_are_all_the_small_ones() -> None:
    assert micro_batch_counts(5) == [1, 2, 3, 4, 5]
    many = micro_batch_counts(500)
    assert many[:16] == list(range(1, 17))
    assert many[-1] == 500
    assert np.all(np.diff(many) > 0)


@pytest.mark.parametrize(
    ("pools", "what"),
    [
        ((FAST, hall("h", H100)), "calibrated processors and machines of the catalog"),
        (tuple(here(f"p{i}", 1, 0.1) for i in range(7)), "7 unlike pools"),
        (
            (hall("e", H100, region="US-VA"), hall("w", H100, region="US-CA")),
            "they are in US-VA and US-CA",
        ),
        (
            (hall("a", replace(H100, links=H100.links[:1])), hall("b", H100)),
            "'a' has no scale-out network",
        ),
        (
            (
                hall("a", H100),
                hall(
                    "b",
                    replace(
                        A100,
                        accelerator=replace(
                            A100.accelerator, flop_per_s={"int8": figure(1e12, "FLOP/s")}
                        ),
                    ),
                ),
            ),
            "no matrix rate in common",
        ),
    ],
)
def test_what_the_pools_cannot_do_together_is_refused(pools: tuple[Pool, ...], what: str) -> None:
    with pytest.raises(InputError, match=what):
        halls(*pools)


def test_one_sequence_cannot_be_shared() -> None:
    with pytest.raises(InputError, match="one sequence a step"):
        asked(FAST, SLOW, workload=train(global_batch=1))
