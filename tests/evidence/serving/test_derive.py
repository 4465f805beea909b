"""From requests to verdicts, and the check that one follows from the other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.evidence.serving import synthetic
from twofold.evidence.serving.check import check_serving
from twofold.evidence.serving.files import is_serving, write_serving_evidence
from twofold.evidence.serving.records import ServingEvidence, ServingResult, Transcript
from twofold.report.serving.page import render_serving_page
from twofold.report.serving.text import serving_claim_text


def middle(evidence: ServingEvidence) -> ServingResult:
    assert evidence.derived is not None
    return next(r for r in evidence.derived.results if r.target == "middle")


def faults(evidence: ServingEvidence, folder: Path) -> list[str]:
    path = folder / "evidence.json"
    write_serving_evidence(evidence, path)
    assert is_serving(path)
    return check_serving(path)


def test_targets_are_multiples_of_one_user_alone() -> None:
    named = {t.name: t.targets for t in synthetic.make().targets}
    assert named["middle"].ttft_s == pytest.approx(0.030)
    assert named["loose"].tpot_s == pytest.approx(0.012)


def test_a_gain_in_goodput_is_proven_with_its_interval() -> None:
    result = middle(synthetic.make())
    assert result.verdict == "proven", result.reason
    assert result.ratio is not None
    assert result.ratio.value == pytest.approx(8.0)
    assert len(result.ratio.pairs) == 3


def test_a_baseline_without_goodput_gives_no_ratio() -> None:
    made = synthetic.make()
    high = [s for s in made.stretches if s.arm != "naive" or s.rate_per_s in (None, 2.0)]
    result = middle(synthetic.derived(replace(made, stretches=high)))
    assert result.verdict == "no verdict"
    assert result.ratio is None
    assert "no ratio to nothing" in result.reason


def test_where_the_baseline_fails_in_one_block_its_lowest_rate_bounds_the_ratio() -> None:
    made = synthetic.make()
    high = [
        s
        for s in made.stretches
        if s.arm != "naive" or s.block != 1 or s.kind != "rate" or s.rate_per_s == 2.0
    ]
    result = middle(synthetic.derived(replace(made, stretches=high)))
    assert result.ratio is not None
    assert result.lower_bound
    assert dict(result.ratio.pairs)[1] == pytest.approx(4.0)


def test_what_was_settled_beforehand_cannot_be_changed_afterwards(tmp_path: Path) -> None:
    made = synthetic.make()
    assert not faults(made, tmp_path)
    experiment = {**made.experiment, "quality": {"margin": made.margin / 2}}
    assert any("margin" in f for f in faults(replace(made, experiment=experiment), tmp_path))
    again = replace(made, stretches=[*made.stretches, made.stretches[-1]])
    assert any("twice" in f for f in faults(synthetic.derived(again), tmp_path))


def test_a_busy_machine_gives_no_verdict() -> None:
    made = synthetic.make()
    busy = [replace(s, crowded_cores=1.0) for s in made.stretches]
    result = middle(synthetic.derived(replace(made, stretches=busy)))
    assert result.verdict == "no verdict"
    assert "other processes" in result.reason


def with_first_answer(
    made: ServingEvidence, tokens: tuple[int, ...], gap: float
) -> ServingEvidence:
    other = Transcript(arm="planned", prompt=0, tokens=tokens, gaps=(1.0, gap, 1.0))
    base = Transcript(arm="naive", prompt=0, tokens=(1, 2, 3), gaps=(1.0, gap, 1.0))
    kept = [t for t in made.transcripts if t.prompt != 0]
    return synthetic.derived(replace(made, transcripts=[other, base, *kept]))


def test_answers_may_part_at_a_near_tie_and_nowhere_else() -> None:
    made = synthetic.make()
    near = with_first_answer(made, (1, 9, 9), 1e-4)
    assert near.derived is not None
    assert near.derived.quality["planned"].num_near_ties == 1
    assert middle(near).verdict == "proven"
    assert middle(with_first_answer(made, (1, 9, 9), 0.5)).verdict == "not proven"


def test_a_lossy_plan_is_judged_by_held_out_loss() -> None:
    made = synthetic.make()
    arms = [replace(a, lossy=a.name == "planned") for a in made.arms]
    lossy = replace(made, arms=arms)
    assert middle(synthetic.derived(lossy)).verdict == "not proven"
    losses = {"naive": [1.0, 1.1, 1.2], "planned": [1.0005, 1.1004, 1.2006]}
    assert middle(synthetic.derived(replace(lossy, held_out=losses))).verdict == "proven"
    worse = {"naive": [1.0, 1.1, 1.2], "planned": [1.1, 1.2, 1.3]}
    assert middle(synthetic.derived(replace(lossy, held_out=worse))).verdict == "not proven"


def test_the_factors_of_all_levers_multiply_to_the_whole() -> None:
    made = synthetic.make()
    assert made.derived is not None
    ratio = middle(made).ratio
    assert ratio is not None
    assert made.derived.attribution[0].value == pytest.approx(ratio.value)


def test_what_was_written_passes_the_check_and_what_was_altered_does_not(tmp_path: Path) -> None:
    made = synthetic.make()
    assert faults(made, tmp_path) == []
    assert made.derived is not None
    better = replace(made.derived.results[0], goodput_per_s=99.0)
    altered = replace(made, derived=replace(made.derived, results=[better]))
    assert any("goodput_per_s" in fault for fault in faults(altered, tmp_path))
    fewer = synthetic.derived(replace(made, stretches=made.stretches[:-4]))
    assert any("was not run at" in fault for fault in faults(fewer, tmp_path))
    slower = [replace(t, times_unloaded=2 * t.times_unloaded) for t in made.targets]
    assert faults(synthetic.derived(replace(made, targets=slower)), tmp_path)


def test_page_and_text_say_the_claim() -> None:
    made = synthetic.make()
    page = render_serving_page(made)
    assert "Proven" in page
    assert "http" not in page.replace("http-equiv", "").replace("http_equiv", "")
    words = serving_claim_text(made, "report.html", "evidence.json")
    assert "PROVEN" in words
    assert "middle target (claimed)" in words
