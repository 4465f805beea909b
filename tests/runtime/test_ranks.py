"""Many ranks compute what one process computes."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.runtime.ranks import Trained, train_ranks
from twofold.plan import Share

LOSS, NORM, WEIGHT = 1e-5, 1e-4, 1e-4
"""Largest differences allowed over 20 steps in fp32: of losses, gradient norms (relative), weights.
Sums are taken in another order, and Adam divides small gradients by their own size."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, text: str) -> Trained:
    return train_ranks(tmp_path_factory.mktemp("alone"), text)


@pytest.mark.verify
def test_two_data_ranks(tmp_path: Path, text: str, alone: Trained) -> None:
    ranks = train_ranks(tmp_path, text, plan={"data_degree": 2, "micro_batch": 3})
    losses, norms, weights = ranks.differs_from(alone)
    assert losses < LOSS
    assert norms < NORM
    assert weights < WEIGHT


@pytest.mark.verify
def test_uneven_shares_give_the_gradient_of_the_whole_batch(
    tmp_path: Path, text: str, alone: Trained
) -> None:
    shares = (Share(pool="local", ranks=1, sequences=9), Share(pool="local", ranks=1, sequences=3))
    ranks = train_ranks(tmp_path, text, plan={"data_degree": 2, "shares": shares, "micro_batch": 5})
    losses, norms, weights = ranks.differs_from(alone)
    assert losses < LOSS
    assert norms < NORM
    assert weights < WEIGHT
