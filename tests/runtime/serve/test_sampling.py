"""Draws follow the distribution that temperature and cuts leave, and nothing else."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from hypothesis import given
from hypothesis import strategies as st

from twofold.runtime.serve.messages import Request
from twofold.runtime.serve.sampling import Draw, choose, choose_tokens, logprobs_of

LOGITS = [2.0, 1.0, 0.0, -1.0, float("-inf")]


def draw_many(number: int, **options: float) -> list[float]:
    """The share of each token among so many draws."""
    request = Request(id=0, prompt=(0,), max_new_tokens=1, **{"temperature": 1.0} | options)  # type: ignore[arg-type]
    random = Random(3)
    logits = torch.tensor([LOGITS] * number)
    tokens = choose_tokens(logits, [Draw(request, random.random()) for _ in range(number)])
    return [tokens.count(token) / number for token in range(len(LOGITS))]


def expected(temperature: float, kept: int) -> list[float]:
    weights = [math.exp(value / temperature) for value in LOGITS[:kept]]
    return [weight / sum(weights) for weight in weights] + [0.0] * (len(LOGITS) - kept)


@pytest.mark.parametrize(
    ("options", "temperature", "kept"),
    [
        ({}, 1.0, 4),
        ({"temperature": 0.5}, 0.5, 4),
        ({"top_k": 2}, 1.0, 2),
        ({"top_p": 0.7}, 1.0, 2),  # 0.64 alone is less than 0.7
        ({"top_p": 0.6}, 1.0, 1),
        ({"top_p": 1e-9}, 1.0, 1),
        ({"top_k": 3, "top_p": 0.95}, 1.0, 3),
    ],
)
def test_draws_follow_what_the_cuts_leave(
    options: dict[str, float], temperature: float, kept: int
) -> None:
    number = 20_000
    shares = draw_many(number, **options)
    for share, probability in zip(shares, expected(temperature, kept), strict=True):
        deviation = math.sqrt(probability * (1 - probability) / number)
        assert abs(share - probability) <= 5 * deviation


def test_rows_are_drawn_each_in_its_own_way() -> None:
    greedy = Request(id=0, prompt=(0,), max_new_tokens=1)
    first = Request(id=1, prompt=(0,), max_new_tokens=1, temperature=1.0, top_k=1)
    barred = Draw(greedy, 0.0, barred=frozenset({0}))
    draws = [Draw(greedy, 0.0), Draw(first, 0.9), barred]
    assert choose_tokens(torch.tensor([LOGITS] * 3), draws) == [0, 0, 1]


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=20), st.integers(0, 2**32))
def test_an_impossible_token_is_never_drawn(values: list[float], seed: int) -> None:
    request = Request(id=0, prompt=(0,), max_new_tokens=1, temperature=2.0)
    if len(values) == 2:
        return
    random, barred = Random(seed), frozenset({0, len(values) - 1})
    draws = [Draw(request, random.random(), barred) for _ in range(8)]
    assert set(choose_tokens(torch.tensor([values] * 8), draws)) <= set(range(1, len(values) - 1))


@pytest.mark.parametrize(
    ("options", "logits"),
    [
        ({"top_k": 2**80, "temperature": 1.0}, LOGITS),
        ({}, [float("nan")] * 5),
        ({"stop_ids": frozenset(range(5)), "min_new_tokens": 1}, LOGITS),
    ],
)
def test_a_row_that_fails_fails_alone(options: dict[str, Any], logits: list[float]) -> None:
    """Too large for a tensor; a broken network; no token may come."""
    good = Request(id=0, prompt=(0,), max_new_tokens=1, temperature=1.0, num_logprobs=2)
    bad = Request(id=1, prompt=(0,), max_new_tokens=1, **options)
    barred = bad.stop_ids
    rows = torch.tensor([LOGITS, logits, LOGITS])
    found = choose(rows, [Draw(good, 0.2), Draw(bad, 0.5, barred), Draw(good, 0.95)])
    alone = choose(torch.tensor([LOGITS] * 2), [Draw(good, 0.2), Draw(good, 0.95)])
    assert [found[0], found[2]] == alone
    assert isinstance(found[1], Exception)


def test_more_logprobs_than_tokens_are_all_of_them() -> None:
    assert len(logprobs_of(torch.tensor([LOGITS]), [1], 20)[0].top) == 5


def test_logprobs_are_normalised_and_sorted() -> None:
    score = logprobs_of(torch.tensor([LOGITS]), [1], 5)[0]
    assert sum(math.exp(value) for _, value in score.top) == pytest.approx(1.0)
    assert [token for token, _ in score.top] == [0, 1, 2, 3, 4]
    assert score.chosen == score.top[1][1]
