"""What an answer promises: the best of its finalists, within the targets, beside the baselines."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.search.serving.questions import question
from twofold.report.serving_text import Written, dividend_lines, serving_text
from twofold.search.serving.answer import ServingAnswer, answer
from twofold.search.serving.carried import most_load
from twofold.search.serving.dividend import thinking_dividend
from twofold.search.serving.finals import judge
from twofold.search.serving.trial import loaded, try_plan
from twofold.simulate import simulate_plan
from twofold.workload.serve import Arrivals, Targets

_IMPOSSIBLE = Targets(ttft_s=0.3, tpot_s=0.0005)


@pytest.fixture(scope="module")
def found() -> ServingAnswer:
    return answer(question())


def test_the_best_is_the_best_of_all_that_were_simulated(found: ServingAnswer) -> None:
    carried = [one.carried for one in found.best if one.meets]
    assert carried == sorted(carried, reverse=True)
    assert [one.role for one in found.best] == ["best", "second", "third"][: len(found.best)]
    sensible = found.baseline("sensible")
    assert sensible is not None
    assert carried[0] >= sensible.carried


def test_the_plan_keeps_the_targets_when_it_is_simulated_again(found: ServingAnswer) -> None:
    asked, best = question(), found.best[0]
    life_s = best.outcome.e2e_s.mean
    workload, requests = loaded(asked, 4.0, life_s, 1200)
    again = simulate_plan(asked.model, asked.fleet, best.plan, workload, requests=requests)
    attained = again.estimate.outcome.attained_fraction
    assert attained is not None
    assert attained >= asked.workload.targets.attainment
    assert not again.overload_fraction
    assert best.meets
    assert not found.is_no


def test_both_baselines_stand_beside_it(found: ServingAnswer) -> None:
    assert [one.role for one in found.baselines] == ["newcomer", "sensible"]
    newcomer, sensible = found.baselines
    assert newcomer.plan.batching == "static"
    assert (sensible.plan.max_num_seqs, sensible.plan.max_batched_tokens) == (256, 8192)


def test_no_plan_is_listed_twice(found: ServingAnswer) -> None:
    plans = [one.plan for one in found.best]
    assert len(plans) == len(set(plans))


def test_what_cannot_be_kept_is_answered_with_the_target_and_the_nearest() -> None:
    asked = question(targets=_IMPOSSIBLE)
    found = answer(asked)
    assert found.is_no
    miss = found.best[0].misses
    assert miss is not None
    assert (miss.target, miss.limit_s) == ("TPOT", 0.0005)
    assert 0.0005 < miss.reached_s < 0.03
    written = Written(path="serve.json", option=found.best[0])
    assert "no: the best plan misses TPOT 0.5 ms however little comes" in serving_text(
        asked, found, written=written
    )


@pytest.mark.slow
def test_one_target_more_never_carries_more(found: ServingAnswer) -> None:
    best = found.best[0]
    carried = [
        judge(question(targets=targets), "best", best.plan, 40.0, 0.2).carried
        for targets in (
            Targets(tpot_s=0.03),
            Targets(ttft_s=0.3, tpot_s=0.03),
            Targets(ttft_s=0.3, tpot_s=0.03, e2e_s=0.25),
            Targets(ttft_s=0.3, tpot_s=0.03, e2e_s=0.25, attainment=0.99),
        )
    ]
    assert carried[0] > 0.0
    # Loads are found to within the step of the last halving.
    assert all(more <= 1.03 * fewer for fewer, more in pairwise(carried))


@pytest.mark.slow
def test_the_cheapest_costs_no_more_than_the_fastest() -> None:
    cheap, fast = answer(question(objective="cost")), answer(question())
    usd = [one.best[0].outcome.usd_per_million_output_tokens() for one in (cheap, fast)]
    assert usd[0] is not None
    assert usd[1] is not None
    assert usd[0] <= 1.001 * usd[1]
    assert cheap.best[0].plan.num_devices <= fast.best[0].plan.num_devices


@pytest.mark.slow
def test_users_who_wait_without_a_target_are_answered_soonest_on_the_most_devices() -> None:
    asked = question(targets=Targets(), arrivals=Arrivals(kind="closed", users=1))
    found = answer(asked)
    assert found.best[0].plan.tensor_degree == 2
    assert found.asked is None
    tried = try_plan(asked, replace(found.best[0].plan, tensor_degree=1, replicas=2), 1.0, 0.1)
    assert tried.outcome.e2e_s.mean > found.best[0].outcome.e2e_s.mean
    assert found.best[0].carried == pytest.approx(1.0 / found.best[0].outcome.e2e_s.mean, rel=0.05)


def test_the_load_asked_for_is_the_one_that_is_told(found: ServingAnswer) -> None:
    assert found.asked == 4.0
    best = found.best[0]
    assert best.carried > 4.0
    assert math.isclose(best.outcome.requests_per_s, 4.0, rel_tol=0.15)


@pytest.mark.slow
def test_the_load_that_was_kept_is_carried_whatever_the_guess(found: ServingAnswer) -> None:
    asked, best = question(), found.best[0]
    life_s = best.outcome.e2e_s.mean
    known = try_plan(asked, best.plan, 4.0, life_s)
    assert known.meets
    for guess in (0.01, 4.0, best.carried, 1e5):
        carried, tried = most_load(asked, best.plan, guess, life_s, known)
        assert tried is not None
        assert carried == tried.load
        assert carried == pytest.approx(best.carried, rel=0.15)
    missed = try_plan(asked, best.plan, 10 * best.carried, life_s)
    assert not missed.meets
    assert missed.load > most_load(asked, best.plan, 1e5, life_s, missed)[0] >= 4.0


def test_users_who_are_carried_are_whole(found: ServingAnswer) -> None:
    asked = question(arrivals=Arrivals(kind="closed", users=3))
    one = judge(asked, "best", replace(found.best[0].plan, replicas=1), 0.2, 0.2)
    assert one.carried >= 3
    assert one.carried == int(one.carried)
    assert one.outcome.num_requests >= 300


@pytest.mark.slow
@pytest.mark.parametrize(
    "arrivals", [Arrivals(rate_per_s=1.0), Arrivals(kind="closed", users=1)], ids=["rate", "users"]
)
def test_what_a_token_costs_at_the_load_carried_is_the_same_at_any_load_asked_for(
    found: ServingAnswer, arrivals: Arrivals
) -> None:
    plan = found.best[0].plan
    heavier = {"rate_per_s": 3000.0} if arrivals.kind == "poisson" else {"users": 60}
    usd = [
        judge(question(arrivals=one), "best", plan, 40.0, 0.2).usd_at_carried
        for one in (arrivals, replace(arrivals, **heavier))  # type: ignore[arg-type]
    ]
    assert usd[0] is not None
    assert usd[1] == pytest.approx(usd[0], rel=0.15)


@pytest.mark.slow
def test_a_dividend_compares_one_load_or_is_not_told(found: ServingAnswer) -> None:
    sensible = found.baseline("sensible")
    assert sensible is not None
    faster = replace(found.best[0].plan, tensor_degree=2, replicas=1)
    lone = judge(question(), "best", faster, 40.0, 0.2)
    gain = thinking_dividend(question(), lone, sensible)
    assert gain is not None
    assert gain.load == 4.0
    assert gain.sooner_s < gain.wait_s
    assert gain.more_tokens > gain.tokens
    assert (gain.less_usd, gain.usd) == (lone.usd_at_carried, sensible.usd_at_carried)
    unasked = thinking_dividend(question(rate_is_given=False), lone, sensible)
    assert unasked is not None
    assert unasked.load == sensible.carried
    flood = question(arrivals=Arrivals(rate_per_s=3000.0))
    drowned = judge(flood, "sensible", sensible.plan, 40.0, 0.2)
    assert drowned.overload_fraction
    assert thinking_dividend(question(), lone, drowned) is None


def test_what_is_no_gain_is_said_to_be_none(found: ServingAnswer) -> None:
    sensible = found.baseline("sensible")
    assert sensible is not None
    slower = judge(question(), "best", replace(sensible.plan, replicas=1), 40.0, 0.2)
    gain = thinking_dividend(question(), slower, sensible)
    assert gain is not None
    lines = dividend_lines(replace(found, dividend=gain), question().workload)
    assert lines[0] == "thinking dividend, against the sensible plan at 4 requests/s, one of:"
    assert lines[1].startswith("  sooner:  no: ")
    assert lines[2].startswith("  longer:  no: ")
