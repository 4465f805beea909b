"""What is derived, and what is refused: the negative controls of the proof."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.evidence.synthetic import TRUTH, build
from twofold.errors import InputError
from twofold.evidence import derive, roof_violations
from twofold.evidence.records import Arm, Evidence, Result, Sample

Change = Callable[[Sample], Sample]


def results(evidence: Evidence) -> dict[tuple[str, str], Result]:
    return {(r.arm, r.baseline): r for r in derive(evidence).results}


def change(evidence: Evidence, which: Callable[[Sample], bool], how: Change) -> Evidence:
    return replace(evidence, samples=[how(s) if which(s) else s for s in evidence.samples])


def change_arm(evidence: Evidence, name: str, how: Callable[[Arm], Arm]) -> Evidence:
    return replace(evidence, arms=[how(a) if a.name == name else a for a in evidence.arms])


def equal_speed() -> dict[str, float]:
    """Makes the arm `same-maths` exactly as fast as the naive baseline."""
    return {"same-maths": TRUTH["same-maths"].tokens_per_s / TRUTH["naive"].tokens_per_s}


# --- what is proven


def test_true_gains_are_found_and_proven() -> None:
    found = results(build(derived=False))
    maths = found["same-maths", "naive"]
    loss = found["twofold", "naive"]
    assert (maths.verdict, loss.verdict) == ("proven", "proven")
    true_maths = TRUTH["same-maths"].tokens_per_s / TRUTH["naive"].tokens_per_s
    assert maths.fixed is not None
    assert loss.fixed is not None
    assert maths.fixed.low is not None
    assert maths.fixed.high is not None
    assert maths.fixed.low <= true_maths <= maths.fixed.high
    true_loss = 800 * 4 / (120 * 8) * TRUTH["twofold"].tokens_per_s / TRUTH["naive"].tokens_per_s
    assert loss.fixed.value == pytest.approx(true_loss, rel=0.05)


def test_the_interval_covers_the_true_gain() -> None:
    true_ratio = TRUTH["same-maths"].tokens_per_s / TRUTH["naive"].tokens_per_s
    covered = 0
    for seed in range(100):
        fixed = results(build(seed, derived=False))["same-maths", "naive"].fixed
        assert fixed is not None
        assert fixed.low is not None
        assert fixed.high is not None
        covered += fixed.low <= true_ratio <= fixed.high
    assert 89 <= covered <= 100  # 95 expected, 2.2 a standard deviation


def test_split_and_factors_multiply_to_the_claim() -> None:
    for result in derive(build(3, derived=False)).results:
        assert result.fixed is not None
        assert result.work_removed is not None
        assert result.work_faster is not None
        assert result.work_removed * result.work_faster == pytest.approx(
            result.fixed.value, rel=1e-12
        )
    claim = results(build(3, derived=False))["twofold", "naive"]
    assert [f.name for f in claim.attribution] == ["maths", "recipe"]
    assert claim.fixed is not None
    assert math.prod(f.value for f in claim.attribution) == pytest.approx(
        claim.fixed.value, rel=1e-12
    )


def test_interaction_is_the_part_beyond_the_single_causes() -> None:
    claim = results(build(noise=0.0, derived=False))["twofold", "naive"]
    speed = {name: truth.tokens_per_s for name, truth in TRUTH.items()}
    expected = math.log(
        speed["twofold"] * speed["naive"] / (speed["same-maths"] * speed["recipe-only"])
    )
    assert claim.interaction == pytest.approx(expected, abs=1e-9)


def test_startup_on_the_clock_lowers_the_gain_of_the_shorter_run() -> None:
    claim = results(build(noise=0.0, derived=False))["twofold", "naive"]
    assert claim.fixed is not None
    assert claim.fixed_with_startup is not None
    naive_s, ours_s = 409_600 / 10_100, 122_880 / 12_200
    assert claim.fixed_with_startup.value == pytest.approx((naive_s + 2.1) / (ours_s + 2.1))


def test_time_to_target_inverts_the_loss_curves() -> None:
    evidence = build(noise=0.0, loss_noise=0.0, derived=False)
    claim = results(evidence)["twofold", "naive"]
    assert claim.to_target is not None
    assert evidence.target_loss is not None
    times_s = {}
    for name in ("naive", "twofold"):
        truth = TRUTH[name]
        more = math.exp((truth.loss - evidence.target_loss) / truth.loss_per_log_token)
        times_s[name] = truth.lengths_tokens[1] * more / truth.tokens_per_s
    assert claim.to_target.value == pytest.approx(times_s["naive"] / times_s["twofold"])


def test_predictions_give_their_own_ratio() -> None:
    found = results(build(noise=0.0, derived=False))
    maths, loss = found["same-maths", "naive"], found["twofold", "naive"]
    assert maths.fixed is not None
    assert loss.fixed is not None
    assert maths.predicted == pytest.approx(maths.fixed.value * 1.06 / 1.04)
    assert loss.predicted == pytest.approx(loss.fixed.value * 1.06 / 1.11)


def test_without_predictions_there_is_no_predicted_ratio() -> None:
    evidence = change_arm(build(derived=False), "naive", lambda a: replace(a, prediction=None))
    assert results(evidence)["twofold", "naive"].predicted is None


# --- negative controls


def test_the_same_speed_is_no_gain() -> None:
    result = results(build(derived=False, slower=equal_speed()))["same-maths", "naive"]
    assert result.verdict == "not proven"
    assert result.fixed is not None
    assert result.fixed.low is not None
    assert result.fixed.high is not None
    assert result.fixed.low < 1 < result.fixed.high


def test_chance_is_seldom_taken_for_a_gain() -> None:
    """2.5 of 100 would pass on the interval alone; the A/A floor lowers that further."""
    proven = sum(
        results(build(seed, derived=False, slower=equal_speed()))["same-maths", "naive"].verdict
        == "proven"
        for seed in range(100)
    )
    assert proven <= 5


def test_a_planted_slowdown_is_below_one_and_not_proven() -> None:
    slower = {"same-maths": 1.3 * equal_speed()["same-maths"]}
    result = results(build(derived=False, slower=slower))["same-maths", "naive"]
    assert result.fixed is not None
    assert result.fixed.high is not None
    assert result.fixed.high < 1
    assert result.verdict == "not proven"
    assert "does not lie above 1" in result.reason


@pytest.mark.parametrize("arm", ["same-maths", "twofold"])
def test_a_planted_loss_regression_is_refused(arm: str) -> None:
    result = results(build(derived=False, worse={arm: 0.15}))[arm, "naive"]
    assert result.verdict == "not proven"
    assert result.quality is not None
    assert not result.quality.passed
    assert "held-out loss" in result.reason


def test_the_same_maths_must_not_learn_better_either() -> None:
    result = results(build(derived=False, worse={"same-maths": -0.15}))["same-maths", "naive"]
    assert result.verdict == "not proven"


def test_a_gain_within_the_bias_of_the_procedure_is_not_proven() -> None:
    """A/A pairs whose second run is always 20 % slower: then 1.05x means nothing."""
    slower = {"same-maths": equal_speed()["same-maths"] / 1.05}
    fair = build(noise=0.003, derived=False, slower=slower)
    biased = change(
        fair,
        lambda s: s.role == "aa" and s.position == 1,
        lambda s: replace(s, train_s=s.train_s * 1.2),
    )
    assert results(fair)["same-maths", "naive"].verdict == "proven"
    result = results(biased)["same-maths", "naive"]
    assert result.verdict == "not proven"
    assert "against itself" in result.reason
    floor = derive(biased).noise_floor
    assert floor is not None
    assert not floor.covers_one


# --- no verdict


def test_a_smoke_test_proves_nothing() -> None:
    smoke = derive(replace(build(derived=False), smoke=True)).results
    assert {(r.verdict, r.reason) for r in smoke} == {("no verdict", "a smoke test proves nothing")}


def verdict_of(evidence: Evidence, arm: str = "twofold") -> tuple[str, str]:
    result = results(evidence)[arm, "naive"]
    return result.verdict, result.reason


def test_pairs_that_spread_too_widely_get_no_verdict() -> None:
    verdict, reason = verdict_of(build(noise=0.5, derived=False))
    assert verdict == "no verdict"
    assert "spread" in reason


def test_a_missing_block_gets_no_verdict() -> None:
    evidence = build(derived=False)
    cut = [s for s in evidence.samples if not (s.role == "run" and s.block == 3)]
    verdict, reason = verdict_of(replace(evidence, samples=cut))
    assert (verdict, reason) == ("no verdict", "only 3 of 4 planned pairs were run")


def test_two_pairs_get_no_verdict() -> None:
    verdict, reason = verdict_of(build(blocks=2, derived=False))
    assert verdict == "no verdict"
    assert "fewer than" in reason


def test_one_pair_or_none_is_still_derived() -> None:
    for blocks in (0, 1):
        assert verdict_of(build(blocks=blocks, aa_pairs=1, derived=False))[0] == "no verdict"


def test_without_aa_pairs_there_is_no_verdict() -> None:
    verdict, reason = verdict_of(build(aa_pairs=0, derived=False))
    assert verdict == "no verdict"
    assert "A/A" in reason


@pytest.mark.parametrize(
    "changes", [{"load_after": 6.0}, {"steal_fraction": 0.2}], ids=["load", "steal"]
)
def test_a_busy_machine_gets_no_verdict(changes: dict[str, float]) -> None:
    busy = change(build(derived=False), lambda _: True, lambda s: replace(s, **changes))
    verdict, reason = verdict_of(busy)
    assert verdict == "no verdict"
    assert "too busy" in reason


def test_unknown_load_and_steal_speak_neither_way() -> None:
    unknown = change(
        build(derived=False),
        lambda _: True,
        lambda s: replace(s, load_before=None, load_after=None, steal_fraction=None),
    )
    assert verdict_of(unknown)[0] == "proven"


def test_a_rate_above_the_roof_gets_no_verdict() -> None:
    evidence = replace(build(derived=False), roof_flop_per_s={"fp32": 180e9, "bf16": 20e9})
    assert roof_violations(evidence) == []  # under bf16 the fp32 roof still holds
    evidence = replace(evidence, roof_flop_per_s={"fp32": 70e9, "bf16": 20e9})
    violations = roof_violations(evidence)
    assert violations
    assert all("above the roof" in v for v in violations)
    assert verdict_of(evidence) == ("no verdict", roof_violations(evidence, ["twofold"])[0])


def test_a_smaller_model_is_not_a_faster_one() -> None:
    small = change_arm(
        build(derived=False), "twofold", lambda a: replace(a, num_parameters=700_000)
    )
    verdict, reason = verdict_of(small)
    assert verdict == "no verdict"
    assert "not matched" in reason


@pytest.mark.parametrize("arm", ["same-maths", "twofold"])
def test_commands_without_losses_get_no_verdict(arm: str) -> None:
    silent = change(build(derived=False), lambda _: True, lambda s: replace(s, test_loss=None))
    result = results(silent)[arm, "naive"]
    assert result.quality is None
    assert result.verdict == "no verdict"
    assert "equal quality was not checked: no held-out loss reported" in result.reason
    assert result.fixed is not None  # the time is shown all the same


def test_a_diverged_run_is_not_left_out() -> None:
    lost = change(
        build(derived=False),
        lambda s: s.arm == "twofold" and s.block == 2 and s.fixed,
        lambda s: replace(s, test_loss=None),
    )
    result = results(lost)["twofold", "naive"]
    assert result.verdict == "no verdict"
    assert "1 of 4 runs of 'twofold'" in result.reason
    assert result.to_target is None


def test_losses_of_unlike_seeds_are_not_compared() -> None:
    unlike = change(
        build(derived=False),
        lambda s: s.arm == "twofold" and s.block == 2,
        lambda s: replace(s, seed=7),
    )
    result = results(unlike)["twofold", "naive"]
    assert result.verdict == "no verdict"
    assert "did not run with the same seeds" in result.reason


# --- the time to the target must not flatter


def test_no_time_to_target_when_the_arm_misses_it_once() -> None:
    missed = change(
        build(derived=False),
        lambda s: s.arm == "twofold" and s.block == 1,
        lambda s: replace(s, test_loss=2.5),
    )
    result = results(missed)["twofold", "naive"]
    assert result.to_target is None
    assert result.notes == ["no time to the target: 'twofold' in block 1: not reached"]


def test_no_time_to_target_when_the_baseline_was_there_from_the_start() -> None:
    early = change(
        build(derived=False),
        lambda s: s.arm == "naive" and s.block == 1,
        lambda s: replace(s, test_loss=2.0),
    )
    assert results(early)["twofold", "naive"].to_target is None


def test_an_arm_below_the_target_from_the_start_is_charged_its_shortest_run() -> None:
    evidence = build(noise=0.0, loss_noise=0.0, derived=False, worse={"twofold": -0.3})
    claim = results(evidence)["twofold", "naive"]
    assert claim.to_target is not None
    rows = {row["arm"]: row for row in derive(evidence).crossings if row["block"] == 0}
    shortest_s = TRUTH["twofold"].lengths_tokens[0] / TRUTH["twofold"].tokens_per_s
    assert rows["twofold"]["train_s"] is None
    assert rows["twofold"]["high_s"] == pytest.approx(shortest_s)
    assert claim.to_target.value == pytest.approx(rows["naive"]["train_s"] / shortest_s)


def test_a_target_missed_by_the_baseline_understates_the_gain() -> None:
    never = change(
        build(noise=0.0, derived=False),
        lambda s: s.arm == "naive",
        lambda s: replace(s, test_loss=2.9),
    )
    claim = results(never)["twofold", "naive"]
    assert claim.to_target is not None
    longest_s = TRUTH["naive"].lengths_tokens[2] / TRUTH["naive"].tokens_per_s
    rows = [row for row in derive(never).crossings if row["arm"] == "twofold"]
    mean_s = math.exp(sum(math.log(row["train_s"]) for row in rows) / len(rows))
    assert claim.to_target.value == pytest.approx(longest_s / mean_s)


def test_without_a_target_there_are_no_crossings() -> None:
    evidence = replace(build(derived=False), target_loss=None)
    derived = derive(evidence)
    assert derived.crossings == []
    assert all(r.to_target is None for r in derived.results)


# --- attribution that would mislead is withheld, and the page says so


def test_a_coalition_that_misses_the_loss_is_not_attributed() -> None:
    result = results(build(derived=False, worse={"recipe-only": 0.2}))["twofold", "naive"]
    assert result.attribution == []
    assert result.interaction is None
    assert "no attribution: 'recipe-only'" in result.notes[0]


def test_a_missing_coalition_is_named() -> None:
    evidence = build(derived=False)
    arms = [a for a in evidence.arms if a.name != "recipe-only"]
    samples = [s for s in evidence.samples if s.arm != "recipe-only"]
    result = results(replace(evidence, arms=arms, samples=samples))["twofold", "naive"]
    assert result.attribution == []
    assert result.notes == ["no attribution: no arm differs in the recipe alone"]


# --- what is not legal


def test_same_maths_needs_one_model_and_one_workload() -> None:
    evidence = replace(build(derived=False), comparisons=[("same maths", "twofold", "naive")])
    with pytest.raises(InputError, match="do not share one model"):
        derive(evidence)


def test_same_maths_of_commands_is_the_users_statement() -> None:
    evidence = build(derived=False)
    for name in ("same-maths", "naive"):
        evidence = change_arm(
            evidence,
            name,
            lambda a: replace(a, model_hash=None, workload_hash=None, command="python train.py"),
        )
    result = results(evidence)["same-maths", "naive"]
    assert result.verdict == "proven"
    assert "the user's statement" in result.reason


def test_a_place_run_twice_is_refused() -> None:
    evidence = build(derived=False)
    with pytest.raises(InputError, match="was run twice"):
        derive(replace(evidence, samples=[*evidence.samples, evidence.samples[-1]]))


def test_a_run_without_time_is_refused() -> None:
    evidence = change(
        build(derived=False), lambda s: s.block == 1, lambda s: replace(s, train_s=0.0)
    )
    with pytest.raises(InputError, match="is not a run"):
        derive(evidence)


@pytest.mark.parametrize("host", ["fast", {"cores": 2}, {"cores": {"usable": "2"}}])
def test_cores_that_cannot_be_read_are_refused(host: object) -> None:
    evidence = build(derived=False)
    with pytest.raises(InputError, match="is not a"):
        derive(replace(evidence, environment={"host": host}))


@pytest.mark.parametrize("plan", [{"precision": ["bf16"]}, {"precision": 16}, "bf16"])
def test_a_precision_that_cannot_be_read_is_refused(plan: object) -> None:
    evidence = change_arm(
        build(derived=False), "twofold", lambda a: replace(a, plan={"plan": plan})
    )
    with pytest.raises(InputError, match="precision of 'twofold' cannot be read"):
        derive(evidence)


@pytest.mark.parametrize("tokens", [10**320, 10**400])
def test_numbers_past_what_can_be_computed_are_refused(tokens: int) -> None:
    evidence = change(
        build(derived=False), lambda s: s.arm == "twofold", lambda s: replace(s, tokens=tokens)
    )
    with pytest.raises(InputError, match="cannot be computed with"):
        derive(evidence)


def test_an_unknown_arm_is_named_with_the_known_ones() -> None:
    evidence = replace(build(derived=False), comparisons=[("same loss", "fast", "naive")])
    with pytest.raises(InputError, match="no arm 'fast'"):
        derive(evidence)
