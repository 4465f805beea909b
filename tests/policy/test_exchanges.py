"""When fragments are sent, and how many bytes that takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofold.plan import Exchange
from twofold.policy.exchanges import EXCHANGE_BYTES, fragment_due, sent_bytes


@given(local_steps=st.integers(1, 60), fragments=st.integers(1, 12))
def test_every_fragment_is_sent_once_in_every_round(local_steps: int, fragments: int) -> None:
    fragments = min(fragments, local_steps)
    for first in (1, 1 + 3 * local_steps):
        due = [
            fragment_due(done, local_steps, fragments) for done in range(first, first + local_steps)
        ]
        assert [fragment for fragment in due if fragment is not None] == list(range(fragments))


def test_one_fragment_is_sent_after_the_last_local_step() -> None:
    assert [fragment_due(done, 4, 1) for done in range(1, 9)] == [None] * 3 + [0] + [None] * 3 + [0]


@pytest.mark.parametrize("ranks", [2, 3, 8])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_bytes_are_the_formula_and_little_padding(ranks: int, precision: Exchange) -> None:
    elements = 1_000_003
    formula = 2 * elements * EXCHANGE_BYTES[precision] * (ranks - 1) / ranks
    assert formula <= sent_bytes(elements, ranks, precision) < 1.01 * formula
