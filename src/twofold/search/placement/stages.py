"""Exact stages: which contiguous layers each pipeline stage holds, the stages' devices given.

A step of m micro-batches takes (m - 1) max_s t_s + sum_s t_s: the slowest stage sets the pace, and
each is filled and drained once (1F1B and GPipe; Narayanan et al. 2021, arXiv 2104.04473, section
2.2, with unlike stages).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSplit:
    """`layers` of each stage in order, the slowest stage's time and that of the whole step."""

    layers: tuple[int, ...]
    slowest_s: float
    step_s: float


def stage_table(
    block_s: Array, *, first_s: float, last_s: float, fits: NDArray[np.bool_] | None = None
) -> Array:
    """[i, j]: seconds of a micro-batch on layers i to j - 1 of a pool; infinite where there are
    none or they do not `fits` [i, j].

    `block_s` are the layers' times there; the first stage has the embedding too, the last the
    head.
    """
    num_layers = len(block_s)
    until = np.concatenate([[0.0], np.cumsum(block_s)])
    table = until[None, :] - until[:, None]
    table[0, :] += first_s
    table[:, num_layers] += last_s
    start, end = np.indices(table.shape)
    allowed = end > start
    if fits is not None:
        allowed &= fits
    return np.where(allowed, table, np.inf)


def split_layers(tables: Sequence[Array], micro_batches: int) -> LayerSplit | None:
    """The split with the least step; None where none fits. `tables` are of each stage.

    For a bound on the slowest stage, a dynamic programme over (stage, layers so far) finds the
    least sum; the bounds worth trying are the stages' own times, from the least possible (a
    second programme, of maxima) up to where even the least sum of all cannot win any more.
    O(stages x layers^2) a bound.
    """
    least = _least_of_maxima(tables)
    if not np.isfinite(least):
        return None
    best: LayerSplit | None = None
    floor_s, _ = _least_sum(tables, np.inf)
    times = np.unique(np.concatenate([table[np.isfinite(table)] for table in tables]))
    for bound_s in times[times >= least]:
        paced = (micro_batches - 1) * float(bound_s)
        if best is not None and paced + floor_s >= best.step_s:
            break
        sum_s, layers = _least_sum(tables, float(bound_s))
        starts = np.concatenate([[0], np.cumsum(layers)])
        slowest = max(float(table[starts[s], starts[s + 1]]) for s, table in enumerate(tables))
        step_s = (micro_batches - 1) * slowest + sum_s
        if best is None or step_s < best.step_s:
            best = LayerSplit(layers=layers, slowest_s=slowest, step_s=step_s)
    return best


def _least_of_maxima(tables: Sequence[Array]) -> float:
    """min over splits of max_s t_s: best[j] = min_i max(best[i], t[i, j]), stage by stage."""
    best = np.full(tables[0].shape[0], np.inf)
    best[0] = 0.0
    for table in tables:
        best = np.maximum(best[:, None], table).min(axis=0)
    return float(best[-1])


def _least_sum(tables: Sequence[Array], bound_s: float) -> tuple[float, tuple[int, ...]]:
    """min of sum_s t_s over splits whose stages all take at most `bound_s`, and the split."""
    best = np.full(tables[0].shape[0], np.inf)
    best[0] = 0.0
    came_from = []
    for table in tables:
        through = best[:, None] + np.where(table <= bound_s, table, np.inf)
        came_from.append(through.argmin(axis=0))
        best = through.min(axis=0)
    end = len(best) - 1
    layers = []
    for origins in reversed(came_from):
        start = int(origins[end])
        layers.append(end - start)
        end = start
    return float(best[-1]), tuple(reversed(layers))
