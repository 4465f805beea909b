"""Order of data depends on the seed alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from hypothesis import given
from hypothesis import strategies as st

from twofold.runtime.train.data import Batches, held_out_windows

TOKENS = np.arange(1000, dtype=np.uint16)


@given(st.integers(0, 400), st.integers(1, 12), st.integers(0, 3))
def test_a_batch_is_its_samples_one_by_one(first: int, count: int, seed: int) -> None:
    batches = Batches(TOKENS, 16, seed)
    whole = batches.batch(first, count)
    single = torch.cat([Batches(TOKENS, 16, seed).batch(first + i, 1) for i in range(count)])
    assert torch.equal(whole, single)


def test_an_epoch_sees_every_window_once() -> None:
    batches = Batches(TOKENS, 16, 0)
    starts = batches.batch(0, batches.num_windows)[:, 0].tolist()
    assert len(set(starts)) == batches.num_windows
    again = batches.batch(batches.num_windows, batches.num_windows)[:, 0].tolist()
    assert starts != again


def test_targets_are_the_next_tokens() -> None:
    rows = Batches(TOKENS, 16, 1).batch(5, 3)
    assert torch.equal(rows[:, 1:], rows[:, :-1] + 1)


def test_held_out_windows_do_not_overlap_and_stay_inside() -> None:
    windows = held_out_windows(TOKENS, 16, 320)
    assert windows.shape == (20, 17)
    starts = windows[:, 0].tolist()
    assert all(b - a >= 16 for a, b in pairwise(starts))
    assert held_out_windows(TOKENS, 16, 10**9).shape[0] == 62
