"""Pricing in chunks: the same as one by one, however long the chunks are."""

from __future__ import annotations

import numpy as np
import pytest

from tests.search.fleet_problems import expert_model, problem
from twofold.perf.fleet import price_table
from twofold.search import sweep
from twofold.search.fleet_space import make_space
from twofold.search.levers import make_levers
from twofold.search.sweep import Chunk, price_space, priced_chunks

LIMIT_BYTES = 20e9


def chunks() -> tuple[list[Chunk], int]:
    case = problem(expert_model(layers=5), num_nodes=2, memory_bytes=LIMIT_BYTES)
    priced = price_space(case, make_space(case, make_levers(case)))
    found = list(priced_chunks(priced, LIMIT_BYTES))
    return [one for one, _, _ in found if one is not None], sum(count for _, _, count in found)


def test_rows_are_those_of_a_table_and_all_of_them_fit() -> None:
    case = problem(expert_model(layers=5), num_nodes=2, memory_bytes=LIMIT_BYTES)
    space = make_space(case, make_levers(case))
    for chunk, _, _ in priced_chunks(price_space(case, space), LIMIT_BYTES):
        assert chunk is not None
        table = space.plans(chunk.layout, chunk.order, chunk.recomputed_layers)
        alone = price_table(case, table)
        assert chunk.columns.fits.all()
        for name in ("time_s", "cost_usd", "energy_j", "carbon_kgco2e", "goodput_fraction"):
            here, there = getattr(chunk.columns, name), getattr(alone, name)
            np.testing.assert_allclose(here, there, rtol=1e-12)
        for name, part in alone.step.parts_s.items():
            np.testing.assert_allclose(chunk.columns.step.parts_s[name], part, rtol=1e-9)
        for name, part in alone.footprint.parts_bytes.items():
            np.testing.assert_allclose(chunk.columns.footprint.parts_bytes[name], part, rtol=1e-9)


def test_chunk_length_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    long, num_too_big = chunks()
    monkeypatch.setattr(sweep, "CHUNK_ROWS", 100)
    short, also_too_big = chunks()
    assert len(short) > len(long)
    assert num_too_big == also_too_big > 0
    times = [np.sort(np.concatenate([c.columns.time_s for c in some])) for some in (long, short)]
    np.testing.assert_array_equal(*times)
