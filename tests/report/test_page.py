"""The page as text: whole, safe, honest, and never without a word where something is missing."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import types
import typing
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.evidence.synthetic import build
from tests.report import examples
from twofold.errors import EnvironmentLack
from twofold.evidence import write_evidence
from twofold.evidence.records import (
    Arm,
    Derived,
    Evidence,
    Factor,
    Prediction,
    Quality,
    Ratio,
    Result,
    Sample,
)
from twofold.report import reading, write_report
from twofold.report.figures.labels import text_width
from twofold.report.page import render_page

SECTIONS = [
    "The claim",
    "Where the factor comes from",
    "Loss against wall time",
    "Predicted against measured",
    "Paired ratios in run order",
    "Memory",
    "Roofline and utilisation",
    "Quality",
    "Tuning bill",
    "Energy",
    "Environment",
    "What the result does not say",
    "How to repeat and to check",
]


@pytest.fixture(params=examples.BY_NAME, scope="module")
def page(request: pytest.FixtureRequest) -> str:
    return render_page(examples.BY_NAME[request.param]())


@pytest.fixture(scope="module")
def whole() -> str:
    return render_page(examples.whole())


@pytest.fixture(scope="module")
def small() -> Evidence:
    return examples.whole(blocks=3, aa_pairs=2)


@cache
def parse(page: str) -> ET.Element:
    """The page as a tree; style and script are not markup and are left out."""
    markup = page.removeprefix("<!doctype html>\n")
    return ET.fromstring(re.sub(r"<(style|script)>.*?</\1>", "", markup, flags=re.DOTALL))


def words(element: ET.Element) -> str:
    return " ".join("".join(element.itertext()).replace("\u00a0", " ").split())


def section(page: str, anchor: str) -> ET.Element:
    found = parse(page).find(f".//section[@id='{anchor}']")
    assert found is not None
    return found


# --- what every page has


def test_all_sections_are_there_in_order(page: str) -> None:
    titles = [words(h2) for h2 in parse(page).iter("h2")]
    assert titles == [f"{i}{title}" for i, title in enumerate(SECTIONS, start=1)]


def test_it_is_one_small_file(page: str) -> None:
    assert len(page.encode()) < 1_000_000


def test_nothing_points_outside(page: str) -> None:
    tree = parse(page)
    for element in tree.iter():
        assert element.tag not in ("img", "iframe", "object", "embed", "link", "base", "form")
        for name, value in element.attrib.items():
            if name in ("src", "href", "action", "srcset", "data", "poster"):
                assert value.startswith("#"), f"{element.tag} {name}={value}"
    style, script = own_code(page)
    assert "url(" not in style
    assert "@import" not in style
    assert not re.search(r"fetch|XMLHttp|import\(|WebSocket|innerHTML|eval", script)
    assert set(re.findall(r"url\(([^)]*)\)", page)) <= {f"#curves-{width}" for width in (328, 800)}


def test_the_content_policy_allows_only_our_own_style_and_script(page: str) -> None:
    metas = [m for m in parse(page).iter("meta") if "http-equiv" in m.attrib]
    policy = metas[0].attrib["content"]
    style, script = (
        f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()}'"
        for code in own_code(page)
    )
    assert policy.split("; ") == [
        "default-src 'none'", f"style-src {style}", f"script-src {script}", "base-uri 'none'",
        "form-action 'none'",
    ]  # fmt: skip
    for element in parse(page).iter():
        assert "style" not in element.attrib
        assert not any(name.startswith("on") for name in element.attrib)


def own_code(page: str) -> tuple[str, str]:
    styles = re.findall(r"<style>(.*?)</style>", page, flags=re.DOTALL)
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    assert len(styles) == len(scripts) == 1
    return styles[0], scripts[0]


def test_links_lead_somewhere_and_ids_are_used_once(page: str) -> None:
    tree = parse(page)
    ids = [e.attrib["id"] for e in tree.iter() if "id" in e.attrib]
    assert len(ids) == len(set(ids))
    for element in tree.iter("a"):
        assert element.attrib["href"].removeprefix("#") in ids


def test_figures_are_named_drawn_twice_and_not_empty(page: str) -> None:
    for figure in parse(page).iter("figure"):
        drawings = [svg for svg in figure.iter("svg") if svg.attrib.get("role") == "img"]
        widths = [svg.attrib["viewBox"].split()[2] for svg in drawings]
        assert widths == ["800", "328"]
        for svg in drawings:
            assert svg.attrib["aria-label"]
            assert any(g.find("title") is not None for g in svg.iter("g"))
        caption = figure.find("figcaption")
        assert caption is not None
        assert words(caption)


def test_no_figure_holds_a_broken_number(page: str) -> None:
    for svg in parse(page).iter("svg"):
        for element in svg.iter():
            for name, value in element.attrib.items():
                if name != "aria-label":
                    assert not re.search(r"\bnan\b|\binf\b|None", value), f"{name}={value}"


def test_no_text_leaves_its_figure(page: str) -> None:
    """By our own wide estimate of fonts; a label cut off is a label not read."""
    for svg in parse(page).iter("svg"):
        width = float(svg.attrib["viewBox"].split()[2])
        for label in svg.iter("text"):
            content = "".join(label.itertext())
            extent = text_width(content) * 0.9
            x = float(label.attrib["x"])
            anchor = label.attrib.get("text-anchor", "start")
            left = x - {"start": 0.0, "middle": extent / 2, "end": extent}[anchor]
            assert left >= -3, content
            assert left + extent <= width + 3, content


# --- what is said of a whole proof


def test_results_are_shown_one_by_one_with_interval_and_absolute_times(whole: str) -> None:
    evidence = examples.whole()
    results = reading.results_of(evidence)
    cards = list(section(whole, "claim").iter("article"))
    assert len(cards) == len(results) == 3
    for card, result in zip(cards, results, strict=True):
        said = words(card)
        assert result.fixed is not None
        assert f"{result.arm} against {result.baseline}" in said
        assert f"{result.fixed.value:.3g}×" in said
        assert f"95 % interval {result.fixed.low:.3g} to {result.fixed.high:.3g}" in said
        assert "4 pairs" in said
        assert result.reason in said
        assert len(list(card.iter("tr"))) == (3 if result.kind == "same maths" else 4)
    assert "Same loss" in words(section(whole, "claim"))


def test_the_absolute_times_divide_to_the_ratio_beside_them() -> None:
    evidence = examples.whole()
    for result in reading.results_of(evidence):
        assert result.fixed is not None
        times_s = reading.paired_times_s(evidence, result, result.fixed, reading.training_clock)
        assert times_s is not None
        assert times_s[0] / times_s[1] == pytest.approx(result.fixed.value, rel=1e-9)


def test_the_waterfall_gives_each_cause_its_range_and_the_parts_multiply(whole: str) -> None:
    said = words(section(whole, "causes"))
    result = reading.results_of(examples.whole())[1]
    assert [factor.name for factor in result.attribution] == ["maths", "recipe"]
    for factor in result.attribution:
        assert f"{factor.first_in:.3g}×" in said
        assert f"{factor.last_in:.3g}×" in said
    assert result.interaction is not None
    assert f"Interaction {math.exp(result.interaction):.3g}×" in said
    assert "work removed" in said
    assert "unexplained" not in said


def test_a_residual_is_shown_and_not_spread_over_the_causes() -> None:
    evidence = examples.whole()
    assert evidence.derived is not None
    shrunk = [
        replace(r, attribution=[replace(f, value=f.value * 0.8) for f in r.attribution])
        for r in evidence.derived.results
    ]
    changed = replace(evidence, derived=replace(evidence.derived, results=shrunk))
    assert "unexplained" in words(section(render_page(changed), "causes"))


def test_predictions_stand_beside_what_was_measured(whole: str) -> None:
    said = words(section(whole, "predictions"))
    assert "predictions within 20 % of the measured value" in said
    assert "twofold, step time: predicted 93.2 ms, measured" in said
    assert "Predicted place of the plan that won: sensible 1 of 2; twofold 1 of 2." in said
    assert examples.whole().predictions_hash[:16] in said  # type: ignore[index]


def test_the_noise_floor_is_shown(whole: str) -> None:
    assert "The same arm against itself gives 1.00×" in words(section(whole, "pairs"))


def test_every_grid_marks_its_winner(whole: str) -> None:
    tuning = section(whole, "tuning")
    assert words(tuning).count("★") == 1 + 5  # the legend, and an arm each
    assert "45 tuning runs took" in words(tuning)


def test_energy_that_is_not_measured_is_said_to_prove_nothing() -> None:
    sentence = "modelled joule is no proof of saving"
    for grade in ("modelled", "unknown", "host-attributed", "something new"):
        page = render_page(replace(examples.whole(), energy_grade=grade))
        assert sentence in words(section(page, "energy"))
    page = render_page(replace(examples.whole(), energy_grade="measured"))
    assert sentence not in words(section(page, "energy"))


def test_lost_attempts_and_earlier_verdicts_are_listed(whole: str) -> None:
    said = words(section(whole, "limits"))
    assert "1 failed, 1 aborted." in said
    assert "out of memory: 3 GiB asked for, 2 GiB left" in said
    assert "2026-11-23-synthetic: same loss, twofold" in said
    assert examples.whole().threats[0] in said


def test_what_the_ledger_shows_of_reruns_is_said() -> None:
    def said(evidence: Evidence) -> str:
        return words(section(render_page(evidence), "limits"))

    once = build()
    assert "Every block ran once." in said(once)
    assert "no other attempt of this experiment" in said(once)
    earlier = replace(once.ledger[0], time="2026-11-23T06:00:00+00:00")
    tried_before = replace(once, ledger=[earlier, *once.ledger])
    assert "The ledger shows 1 other attempt of this experiment." in said(tried_before)
    started = once.ledger[1]
    again = replace(once, ledger=[*once.ledger, started])
    assert "1 block ran again after an interruption or a failure: 0." in said(again)
    assert "ran once" not in said(again)
    of_an_earlier_proof = replace(started, time="2026-11-23T06:00:00+00:00")
    other = replace(once, ledger=[of_an_earlier_proof, *once.ledger])
    assert "Every block ran once." in said(other)
    silent = replace(once, ledger=[e for e in once.ledger if e != started])
    assert "The ledger does not show every arm started in every block." in said(silent)
    assert "until it passed" not in said(once)


def test_every_lost_attempt_is_listed_however_many() -> None:
    page = render_page(examples.many_runs())
    tables = section(page, "limits").findall(".//table")
    lost = next(t for t in tables if "all of them" in words(t))
    assert len(lost.findall(".//tbody/tr")) == 602


def test_the_hash_is_that_of_the_evidence_file(tmp_path: Path) -> None:
    evidence = examples.whole()
    write_evidence(evidence, tmp_path / "evidence.json")
    stored = json.loads((tmp_path / "evidence.json").read_text(encoding="utf-8"))["content_hash"]
    assert stored in words(section(render_page(evidence), "repeat"))


def test_the_same_evidence_makes_the_same_page() -> None:
    assert render_page(examples.whole()) == render_page(examples.whole())


# --- honesty


def test_what_is_not_proven_is_said_as_boldly_and_claims_nothing() -> None:
    page = render_page(examples.not_proven())
    cards = list(section(page, "claim").iter("article"))
    verdicts = [words(p) for card in cards for p in card.iter("p") if is_verdict(p)]
    assert verdicts == ["? No verdict", "✗ Not proven", "? No verdict"]
    for card in cards:
        assert "not claimed" in words(card)
        assert "At least 2×" not in words(card)


def is_verdict(element: ET.Element) -> bool:
    return element.attrib.get("class", "").startswith("verdict ")


def test_a_smoke_test_is_marked_everywhere_and_claims_nothing() -> None:
    page = render_page(examples.smoke())
    tree = parse(page)
    assert "(smoke test)" in words(next(tree.iter("title")))
    banner = tree.find(".//p[@class='banner']")
    assert banner is not None
    assert words(banner).startswith("Smoke test, not evidence.")
    for card in section(page, "claim").iter("article"):
        assert "No verdict" in words(card)
        assert "smoke test, not evidence" in words(card)
        assert "not claimed" in words(card)
    assert "moke test" not in render_page(examples.whole())


# --- what is missing is said


def test_two_bare_commands_get_sentences_instead_of_figures() -> None:
    page = render_page(examples.sparse())
    for anchor, sentence in {
        "claim": "No ratio was predicted.",
        "learning": "No run reported a held-out loss, so equal quality cannot be shown.",
        "predictions": "No arm carries a prediction",
        "memory": "No arm's memory was predicted in parts.",
        "roofline": "No arm's operators are known",
        "quality": "Equal quality was not checked: sensible against naive (same loss).",
        "tuning": "No tuning is recorded",
        "energy": "No energy was recorded for any run.",
        "environment": "The environment was not recorded.",
        "limits": "The ledger is empty",
        "repeat": "The experiment file was not recorded.",
    }.items():
        assert sentence in words(section(page, anchor)), anchor


def test_nothing_at_all_is_still_a_page() -> None:
    page = render_page(examples.empty())
    assert next(parse(page).iter("figure"), None) is None
    assert "No comparison was made" in words(section(page, "claim"))
    underived = render_page(examples.without_everything())
    assert "Nothing has been derived" in words(section(underived, "claim"))


def emptied() -> Iterator[Any]:
    """Every field of every record that may be None or hold nothing, one at a time."""
    for record in (Evidence, Arm, Sample, Prediction, Derived, Result, Ratio, Quality, Factor):
        hints = typing.get_type_hints(record)
        for field in fields(record):
            hint = hints[field.name]
            if type(None) in typing.get_args(hint):
                value: Any = None
            elif typing.get_origin(hint) in (list, dict, tuple):
                value = typing.get_origin(hint)()
            else:
                continue
            if (record, field.name) in ((Arm, "command"), (Result, "notes")):
                continue  # already so in a whole proof of plans
            yield pytest.param(record, field.name, value, id=f"{record.__name__}.{field.name}")


def rebuilt(value: Any, record: type, change: Callable[[Any], Any]) -> Any:
    """The value with `change` applied to every `record` inside it."""
    if is_dataclass(value) and not isinstance(value, type):
        inner = {f.name: rebuilt(getattr(value, f.name), record, change) for f in fields(value)}
        copy = replace(value, **inner)
        return change(copy) if isinstance(copy, record) else copy
    if isinstance(value, list | tuple):
        return type(value)(rebuilt(item, record, change) for item in value)
    return value


@pytest.mark.parametrize(("record", "name", "value"), list(emptied()))
def test_every_missing_thing_renders(small: Evidence, record: type, name: str, value: Any) -> None:
    changed = rebuilt(small, record, lambda found: replace(found, **{name: value}))
    assert changed != small
    page = render_page(changed)
    assert [words(h2) for h2 in parse(page).iter("h2")][-1] == f"13{SECTIONS[-1]}"
    assert not re.search(r"\bNone\b|\bnan\b", words(next(parse(page).iter("main"))))


def test_the_search_for_missing_things_finds_them() -> None:
    assert isinstance(typing.get_type_hints(Sample)["test_loss"], types.UnionType)
    assert len(list(emptied())) > 40


def test_runs_that_do_not_say_their_tokens_still_render(small: Evidence) -> None:
    silent = rebuilt(small, Sample, lambda sample: replace(sample, tokens=0, num_steps=0))
    said = words(section(render_page(silent), "claim"))
    assert "not known" in said


def test_no_utilisation_above_the_roof_is_ever_printed(small: Evidence) -> None:
    low_roof = {name: roof / 10 for name, roof in small.roof_flop_per_s.items()}
    roofline = section(render_page(replace(small, roof_flop_per_s=low_roof)), "roofline")
    assert "above the roof: an error to find" in words(roofline)
    shown = re.findall(r"([\d.]+) %", words(section(render_page(small), "roofline")))
    assert all(float(percent) <= 100 for percent in shown)


# --- attacks


def test_hostile_text_stays_text() -> None:
    page = render_page(examples.hostile())
    assert len(re.findall(r"<script", page)) == 1
    assert "<script>alert" not in page
    shown = words(next(parse(page).iter("h1")))
    assert shown.startswith("<script>alert(1)</script>")


def test_a_page_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EnvironmentLack, match="cannot be written"):
        write_report(examples.empty(), tmp_path / "file" / "report.html")
    write_report(examples.empty(), tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
