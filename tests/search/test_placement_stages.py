"""Stages are optimal: against every contiguous split, on small pipelines."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from twofold.search.placement.stages import split_layers, stage_table

Array = NDArray[np.float64]


@st.composite
def pipelines(draw: st.DrawFn) -> list[Array]:
    """Layers that differ, stages that differ, some spans too big for some stage."""
    num_layers = draw(st.integers(1, 7))
    seconds = st.floats(0.01, 5.0)
    tables = []
    for _ in range(draw(st.integers(1, min(4, num_layers)))):
        block_s = np.array(draw(st.lists(seconds, min_size=num_layers, max_size=num_layers)))
        most = draw(st.integers(1, num_layers))
        start, end = np.indices((num_layers + 1, num_layers + 1))
        tables.append(
            stage_table(
                block_s,
                first_s=draw(st.floats(0.0, 2.0)),
                last_s=draw(st.floats(0.0, 2.0)),
                fits=end - start <= most,
            )
        )
    return tables


def by_exhaustion(tables: list[Array], micro_batches: int) -> float:
    num_layers = tables[0].shape[0] - 1
    best = np.inf
    for cuts in combinations(range(1, num_layers), len(tables) - 1):
        bounds = (0, *cuts, num_layers)
        times = [table[bounds[s], bounds[s + 1]] for s, table in enumerate(tables)]
        if max(times) < np.inf:
            best = min(best, (micro_batches - 1) * max(times) + sum(times))
    return float(best)


@given(pipelines(), st.integers(1, 20))
def test_no_contiguous_split_is_faster(tables: list[Array], micro_batches: int) -> None:
    found, best = split_layers(tables, micro_batches), by_exhaustion(tables, micro_batches)
    if found is None:
        assert best == np.inf
        return
    assert found.step_s == pytest.approx(best)
    assert sum(found.layers) == tables[0].shape[0] - 1
    assert min(found.layers) >= 1


@given(st.integers(2, 6), st.integers(1, 4), st.integers(1, 16))
def test_equal_stages_of_equal_layers_are_as_even_as_can_be(
    per_stage: int, stages: int, micro_batches: int
) -> None:
    table = stage_table(np.ones(per_stage * stages), first_s=0.0, last_s=0.0)
    found = split_layers([table] * stages, micro_batches)
    assert found is not None
    assert found.slowest_s == pytest.approx(per_stage)


def test_a_slow_stage_holds_fewer_layers_and_the_head_counts() -> None:
    fast = stage_table(np.full(12, 1.0), first_s=0.0, last_s=2.0)
    slow = stage_table(np.full(12, 3.0), first_s=0.0, last_s=6.0)
    found = split_layers([slow, fast], 64)
    assert found is not None
    assert found.layers == (3, 9)
    behind = split_layers([fast, slow], 64)
    assert behind is not None
    assert behind.layers == (11, 1)
