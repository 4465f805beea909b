"""Answers as an outcome: what failed counts, and how long the last ones take does not."""

from __future__ import annotations

import pytest

from twofold.evidence.serving.answers import Answer
from twofold.measure.load.outcome import outcome_of
from twofold.workload.serve import Targets

TARGETS = Targets(ttft_s=1.0)


def answer(intended_s: float, *, ttft_s: float = 0.1, error: str | None = None) -> Answer:
    first_s = intended_s + ttft_s
    return Answer(
        intended_s=intended_s,
        sent_s=intended_s,
        first_s=None if error else first_s,
        end_s=intended_s if error else first_s + 0.9,
        input_tokens=10,
        output_tokens=0 if error else 10,
        error=error,
    )


def test_a_server_that_dies_half_way_has_half_the_goodput() -> None:
    """Five a second for ten seconds; the second half is refused at once."""
    answers = [answer(0.2 * n, error="refused" if n >= 25 else None) for n in range(51)]
    outcome = outcome_of(answers, TARGETS)
    assert outcome is not None
    assert outcome.attained_fraction == pytest.approx(25 / 51)
    assert outcome.goodput_per_s == pytest.approx(5 * 25 / 51)
    assert outcome.duration_s == pytest.approx(10.0)
    assert outcome.requests_per_s == pytest.approx(2.5)


def test_goodput_of_all_that_were_asked_is_the_rate_asked() -> None:
    outcome = outcome_of([answer(0.2 * n) for n in range(51)], TARGETS)
    assert outcome is not None
    assert outcome.goodput_per_s == pytest.approx(5.0)
    assert outcome.duration_s == pytest.approx(11.0)


def test_what_came_at_once_or_from_users_is_judged_to_the_last_answer() -> None:
    offline = outcome_of([answer(0.0)] * 10, TARGETS)
    closed = outcome_of([answer(1.0 * n) for n in range(10)], TARGETS, open_loop=False)
    assert offline is not None
    assert closed is not None
    assert offline.goodput_per_s == pytest.approx(10.0)
    assert closed.goodput_per_s == pytest.approx(1.0)


def test_without_an_answer_there_is_no_outcome() -> None:
    assert outcome_of([answer(0.0, error="refused")], TARGETS) is None
