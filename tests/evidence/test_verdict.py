"""What must be paid before a gain is proven: the whole run, start-up, loss within the margin."""

import math
from dataclasses import replace

import pytest

from tests.evidence.synthetic import TRUTH, build
from tests.evidence.test_derive import change, change_arm, results
from twofold.evidence.records import Arm, Evidence, Quality, Result
from twofold.evidence.verdict import margin_charge


def as_command(arm: Arm) -> Arm:
    return replace(arm, plan=None, command="python train.py", prediction=None)


@pytest.mark.parametrize("name", ["twofold", "naive"])
def test_whole_runs_of_a_command_are_claimed_by_their_whole_wall_time(name: str) -> None:
    """Nine tenths of a command's run may be steps that were not kept."""
    embedded = change(
        build(derived=False), lambda s: s.arm == name, lambda s: replace(s, startup_s=9 * s.train_s)
    )
    before = results(embedded)["twofold", "naive"]
    assert before.fixed != before.fixed_with_startup
    result = results(change_arm(embedded, name, as_command))["twofold", "naive"]
    assert result.fixed == result.fixed_with_startup == before.fixed_with_startup
    assert result.fixed is not None
    assert result.work_removed is not None
    assert result.work_faster is not None
    assert result.work_removed * result.work_faster == pytest.approx(result.fixed.value)
    assert math.prod(f.value for f in result.attribution) == pytest.approx(result.fixed.value)


def test_the_same_maths_of_commands_is_claimed_by_their_training_time() -> None:
    commands = build(derived=False)
    before = results(commands)["same-maths", "naive"].fixed
    for name in ("same-maths", "naive"):
        commands = change_arm(commands, name, as_command)
    assert results(commands)["same-maths", "naive"].fixed == before


def starting_in(name: str, startup_s: float) -> Evidence:
    return change(
        build(derived=False), lambda s: s.arm == name, lambda s: replace(s, startup_s=startup_s)
    )


def test_a_gain_that_start_up_eats_is_not_proven() -> None:
    result = results(starting_in("twofold", 32.0))["twofold", "naive"]
    assert result.fixed is not None
    assert result.fixed.value > 3
    assert result.verdict == "not proven"
    assert "with start-up on the clock it is 1.0" in result.reason


def test_a_rate_may_cost_start_up_but_not_make_the_run_slower() -> None:
    even = results(starting_in("same-maths", 19.0))["same-maths", "naive"]
    assert even.fixed_with_startup is not None
    assert even.fixed_with_startup.low is not None
    assert even.fixed_with_startup.high is not None
    assert even.fixed_with_startup.low < 1 < even.fixed_with_startup.high
    assert even.verdict == "proven"
    slower = results(starting_in("same-maths", 25.0))["same-maths", "naive"]
    assert slower.fixed == even.fixed
    assert slower.verdict == "not proven"
    assert "with start-up on the clock it is slower" in slower.reason


def barely_faster(loss_difference: float) -> Evidence:
    """'twofold' 1.03x as fast as 'naive', with a held-out loss higher by the given nats."""
    naive, ours = TRUTH["naive"], TRUTH["twofold"]
    naive_s, ours_s = (t.lengths_tokens[1] / t.tokens_per_s for t in (naive, ours))
    return build(
        noise=0.003,
        loss_noise=0.004,
        derived=False,
        slower={"twofold": naive_s / ours_s / 1.03},
        worse={"twofold": naive.loss - ours.loss + loss_difference},
    )


def test_loss_within_the_margin_is_paid_for_in_time() -> None:
    assert results(barely_faster(-0.02))["twofold", "naive"].verdict == "proven"
    result = results(barely_faster(0.02))["twofold", "naive"]
    assert result.quality is not None
    assert result.quality.passed
    assert result.verdict == "not proven"
    assert "which the baseline gains by training 1.0" in result.reason


def test_loss_that_cannot_be_charged_as_time_is_not_proven_to_be_equal() -> None:
    """The baseline at one length alone does not show what its loss costs."""

    def at_one_length(evidence: Evidence) -> Result:
        kept = [s for s in evidence.samples if s.arm != "naive" or s.fixed or s.role == "aa"]
        result = results(replace(evidence, samples=kept))["twofold", "naive"]
        assert result.quality is not None
        assert result.quality.passed
        assert result.quality.upper is not None
        assert result.quality.upper > 0
        assert result.quality.margin_time_fraction is None
        return result

    worse = at_one_length(barely_faster(0.01))
    assert worse.verdict == "not proven"
    assert "cannot be charged as time" in worse.reason
    no_worse = at_one_length(barely_faster(-0.002))
    assert no_worse.quality is not None
    assert no_worse.quality.difference <= 0
    assert no_worse.verdict == "proven"


def test_the_charge_is_the_share_of_the_margin_that_is_used() -> None:
    quality = Quality(
        difference=0.01, upper=0.015, margin=0.03, passed=True, margin_time_fraction=0.1
    )
    assert margin_charge(quality) == pytest.approx(1.05)
    assert margin_charge(replace(quality, upper=-0.01)) == 1.0
    assert margin_charge(replace(quality, margin_time_fraction=None)) is None
